-- By campaign, for how many seconds its oldest open row (planned, ready or sending) has been there; 0 without one. A
-- campaign whose cohorts are all closed is named too, or a gauge would show its last number for ever; their sends are not
-- read.
SELECT c.campaign, coalesce(extract(epoch FROM now() - min(oldest.planned_at)), 0)::float
FROM lifecycle.cohorts AS c
CROSS JOIN LATERAL (
    SELECT min(s.planned_at) AS planned_at
    FROM lifecycle.sends AS s
    WHERE c.closed_at IS NULL
      AND s.campaign = c.campaign AND s.cohort_date = c.cohort_date AND s.state IN ('planned', 'ready', 'sending')
) AS oldest
GROUP BY c.campaign
ORDER BY c.campaign
