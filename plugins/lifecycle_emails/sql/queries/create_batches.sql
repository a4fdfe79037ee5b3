INSERT INTO lifecycle.batches (campaign, cohort_date, batch)
SELECT DISTINCT campaign, cohort_date, batch
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
ON CONFLICT DO NOTHING
