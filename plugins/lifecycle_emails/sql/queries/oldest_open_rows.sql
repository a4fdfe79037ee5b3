-- By campaign, for how many seconds its oldest open row (planned, ready or sending) has been there; 0 without one.
SELECT c.campaign, coalesce(extract(epoch FROM now() - min(oldest.planned_at)), 0)::float
FROM lifecycle.cohorts AS c
CROSS JOIN LATERAL (
    SELECT min(s.planned_at) AS planned_at
    FROM lifecycle.sends AS s
    WHERE s.campaign = c.campaign AND s.cohort_date = c.cohort_date AND s.state IN ('planned', 'ready', 'sending')
) AS oldest
WHERE c.closed_at IS NULL
GROUP BY c.campaign
ORDER BY c.campaign
