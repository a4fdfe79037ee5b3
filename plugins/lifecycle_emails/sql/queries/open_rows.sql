-- Rows that a run should have dealt with: still planned, or ready and due; and those due again later, which a later run
-- takes. Past the deadline maintenance has them. What the volume breaker holds back is not due.
SELECT
    count(*) FILTER (WHERE s.state = 'planned'),
    count(*) FILTER (WHERE s.state = 'ready' AND (s.not_before IS NULL OR s.not_before <= now())),
    count(*) FILTER (WHERE s.state = 'ready' AND s.not_before > now()),
    max(s.not_before) FILTER (WHERE s.state = 'ready' AND s.not_before > now()),
    min(c.not_after) FILTER (WHERE s.state = 'ready' AND s.not_before > now())
FROM lifecycle.sends AS s
JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = ANY (%(cohort_dates)s)
  AND s.state IN ('planned', 'ready')
  AND c.not_after > now()
  AND (c.volume_verdict IS NULL OR c.volume_verdict NOT IN ('awaiting_approval', 'refused'))
