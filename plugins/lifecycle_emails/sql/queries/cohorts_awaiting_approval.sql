SELECT cohort_date, volume_size, volume_figures ->> 'words'
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s
  AND cohort_date = ANY (%(cohort_dates)s)
  AND volume_verdict = 'awaiting_approval'
  AND not_after > now()
ORDER BY cohort_date
