SELECT state::text, held_reason::text, count(*)
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = ANY (%(cohort_dates)s)
GROUP BY state, held_reason
ORDER BY state, held_reason
