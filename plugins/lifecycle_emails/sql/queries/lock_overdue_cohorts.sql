-- Before close_cohorts, in a statement of its own: a late refusal that is being committed holds its cohort, and
-- close_cohorts, which begins after that, sees the user whom it has put back.
SELECT FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND closed_at IS NULL AND not_after <= now()
ORDER BY cohort_date
FOR NO KEY UPDATE
