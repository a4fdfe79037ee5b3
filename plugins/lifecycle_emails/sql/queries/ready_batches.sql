-- Batches with ready rows, whoever made them ready.
SELECT cohort_date, batch, count(*)
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND state = 'ready'
GROUP BY cohort_date, batch
ORDER BY cohort_date, batch
