SELECT user_id, email, full_name, created_at
FROM users
WHERE created_at >= %(cohort_start)s AND created_at < %(cohort_end)s
