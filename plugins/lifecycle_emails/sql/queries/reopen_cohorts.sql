-- Sweeps go by the open cohorts.
UPDATE lifecycle.cohorts SET closed_at = NULL
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND closed_at IS NOT NULL
