-- Everybody who was created in the cohort's window [cohort_start, cohort_end) and takes e-mail.
-- Returns user_id, email, and the template's variables.
SELECT user_id, email, full_name, locale, created_at
FROM users
WHERE created_at >= %(cohort_start)s
  AND created_at < %(cohort_end)s
  AND NOT email_opt_out
