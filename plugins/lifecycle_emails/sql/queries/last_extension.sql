-- Who was the last to extend one of these cohorts, and when.
SELECT extended_by, extended_at
FROM lifecycle.extensions
WHERE campaign = %(campaign)s AND cohort_from <= %(cohort_to)s AND cohort_to >= %(cohort_from)s
ORDER BY extension_id DESC
LIMIT 1
