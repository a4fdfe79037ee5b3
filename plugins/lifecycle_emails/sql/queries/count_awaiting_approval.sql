-- By campaign, how many of its cohorts await a person's approval before their deadline; 0 too, or a gauge would show its
-- last number for ever.
SELECT campaign, count(*) FILTER (WHERE volume_verdict = 'awaiting_approval' AND not_after > now())
FROM lifecycle.cohorts
GROUP BY campaign
ORDER BY campaign
