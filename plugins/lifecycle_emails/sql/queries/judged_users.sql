-- What became of everybody of a cohort, in order of batches; read in a transaction that is rolled back.
SELECT user_id, state::text, held_reason::text, detail, not_before
FROM lifecycle.sends
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
ORDER BY batch, user_id
