-- Those who were created in the cohort's window, take e-mail, and have not finished setting up.
-- Who finishes before the mail goes out is no longer returned, and is not mailed.
SELECT user_id, email, full_name, locale, created_at
FROM users
WHERE created_at >= %(cohort_start)s
  AND created_at < %(cohort_end)s
  AND NOT setup_done
  AND NOT email_opt_out
