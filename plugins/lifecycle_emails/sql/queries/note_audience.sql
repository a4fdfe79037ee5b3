UPDATE lifecycle.cohorts
SET audience_read_at = now(), audience_size = %(found)s, audience_without_row = %(without_row)s, closed_at = NULL
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
