SELECT volume_verdict::text, volume_size, volume_decided_by, volume_decided_at, not_after <= now()
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
