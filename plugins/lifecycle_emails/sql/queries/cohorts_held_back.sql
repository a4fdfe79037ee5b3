SELECT cohort_date
FROM lifecycle.cohorts_held_back
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s)
