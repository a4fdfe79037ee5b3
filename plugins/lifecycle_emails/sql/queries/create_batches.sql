-- Batches are numbered without gaps from 0.
INSERT INTO lifecycle.batches (campaign, cohort_date, batch)
SELECT %(campaign)s, %(cohort_date)s, generate_series(0, max(batch))
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
ON CONFLICT DO NOTHING
