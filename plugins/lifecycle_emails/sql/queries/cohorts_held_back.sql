-- Cohorts whose users limit_rate leaves planned: held back by the volume breaker, or grown since it looked at them. The
-- run that has made one grow is about to look; until then nobody knows whether it is still of a usual size.
SELECT cohort_date
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s
  AND cohort_date = ANY (%(cohort_dates)s)
  AND (volume_verdict IN ('awaiting_approval', 'refused') OR (volume_verdict = 'within' AND audience_size > volume_size))
