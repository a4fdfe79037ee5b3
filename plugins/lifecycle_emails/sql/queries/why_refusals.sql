SELECT campaign, cohort_date, refused_at, rule, slots_taken
FROM lifecycle.cap_refusals
WHERE user_id = %(user_id)s
ORDER BY refusal_id
