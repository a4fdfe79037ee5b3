-- Batches with ready rows, whoever made them ready, but of cohorts that the volume breaker holds back: those are asked
-- for once, not for every row.
SELECT cohort_date, batch, count(*)
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND state = 'ready'
  AND cohort_date <> ALL (ARRAY(
      SELECT h.cohort_date FROM lifecycle.cohorts_held_back AS h WHERE h.campaign = %(campaign)s
  ))
GROUP BY cohort_date, batch
ORDER BY cohort_date, batch
