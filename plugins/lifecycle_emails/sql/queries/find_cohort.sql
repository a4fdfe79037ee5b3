SELECT campaign, cohort_date, window_start, window_end, timezone, offset_days, not_after
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
