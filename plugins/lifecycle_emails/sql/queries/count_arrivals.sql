-- Of those who were known before: with a row in another cohort, and without any row (an error; always 0).
SELECT count(s.cohort_date) FILTER (WHERE s.cohort_date <> %(cohort_date)s), count(*) - count(s.cohort_date)
FROM arrivals AS a
LEFT JOIN LATERAL (
    SELECT s.cohort_date FROM lifecycle.sends AS s
    WHERE s.user_id = a.user_id AND s.campaign || '' = %(campaign)s AND s.occurrence = 'once'
    LIMIT 1 -- one look-up per row, by key: see plan_arrivals
) AS s ON true
WHERE %(known)s > 0
