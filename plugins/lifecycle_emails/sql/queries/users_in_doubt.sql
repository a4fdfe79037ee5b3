SELECT user_id FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND state = 'in_doubt'
ORDER BY user_id
LIMIT %(most)s
