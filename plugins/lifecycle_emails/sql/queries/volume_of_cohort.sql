-- A cohort's size and verdict, and the median size of the campaign's cohorts of the time before it, weekdays and weekends
-- alike. What did not go out is no measure. A cohort counts with the largest size it had: later extracts find those who
-- have left the audience no more. No row: past its deadline, or never read.
SELECT
    coalesce(c.audience_size, 0),
    c.window_end,
    c.volume_verdict::text,
    c.volume_size,
    past.cohorts,
    past.median
FROM lifecycle.cohorts AS c
CROSS JOIN LATERAL (
    SELECT
        count(*)::integer AS cohorts,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(e.volume_size, e.audience_size)) AS median
    FROM lifecycle.cohorts AS e
    WHERE e.campaign = c.campaign
      AND e.cohort_date < c.cohort_date
      AND e.cohort_date >= c.cohort_date - %(history)s::interval
      AND e.audience_size IS NOT NULL
      AND (e.volume_verdict IS NULL OR e.volume_verdict IN ('within', 'approved'))
) AS past
WHERE c.campaign = %(campaign)s
  AND c.cohort_date = %(cohort_date)s
  AND c.audience_read_at IS NOT NULL
  AND c.not_after > now()
