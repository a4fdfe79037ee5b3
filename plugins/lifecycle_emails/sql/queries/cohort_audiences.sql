SELECT cohort_date, audience_size, audience_without_row, volume_verdict::text, volume_figures ->> 'words', volume_decided_by, volume_reason
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s)
ORDER BY cohort_date
