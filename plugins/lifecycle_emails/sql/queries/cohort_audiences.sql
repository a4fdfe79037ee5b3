SELECT cohort_date, audience_size, audience_without_row, not_after
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s)
ORDER BY cohort_date
