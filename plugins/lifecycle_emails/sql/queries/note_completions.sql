-- Cohorts that are complete, and were not when last told, or had other counts, or were told by this very run.
INSERT INTO lifecycle.completions (campaign, cohort_date, run, counts)
SELECT c.campaign, c.cohort_date, %(run)s, jsonb_build_object(
    'users', count(s.user_id),
    'sent', count(*) FILTER (WHERE s.state = 'sent'),
    'held', count(*) FILTER (WHERE s.state = 'held'),
    'rejected', count(*) FILTER (WHERE s.state = 'rejected'),
    'in_doubt', count(*) FILTER (WHERE s.state = 'in_doubt')
)
FROM lifecycle.cohorts AS c
LEFT JOIN lifecycle.sends AS s USING (campaign, cohort_date)
WHERE c.campaign = %(campaign)s AND c.cohort_date = ANY (%(cohort_dates)s) AND c.audience_read_at IS NOT NULL
GROUP BY c.campaign, c.cohort_date
HAVING count(*) FILTER (WHERE s.state IN ('planned', 'ready', 'sending')) = 0
ON CONFLICT (campaign, cohort_date) DO UPDATE
SET run = excluded.run, completed_at = excluded.completed_at, counts = excluded.counts
WHERE completions.counts <> excluded.counts OR completions.run = excluded.run
RETURNING cohort_date, counts
