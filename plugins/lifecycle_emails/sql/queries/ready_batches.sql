-- Batches with ready rows, whoever made them ready, but of cohorts that the volume breaker holds back.
SELECT cohort_date, batch, count(*)
FROM lifecycle.sends AS s
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND state = 'ready'
  AND NOT EXISTS (
      SELECT FROM lifecycle.cohorts_held_back AS h
      WHERE h.campaign = s.campaign AND h.cohort_date = s.cohort_date
  )
GROUP BY cohort_date, batch
ORDER BY cohort_date, batch
