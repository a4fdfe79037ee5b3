SELECT run, started_at
FROM lifecycle.cohort_steps
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s AND step = %(step)s
ORDER BY started_at DESC, step_id DESC
LIMIT 1
