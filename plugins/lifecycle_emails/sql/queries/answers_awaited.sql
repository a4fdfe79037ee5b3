SELECT max(answer_due)
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s) AND state = 'sending' AND answer_due >= now()
