-- A campaign's earlier cohorts that a scheduled run takes along: still before their deadline, or never planned
-- (a gap between two cohorts). What is past its deadline is planned too, and then held as stale, so the sums close.
SELECT day::date
FROM generate_series(
    (SELECT min(cohort_date) FROM lifecycle.cohorts WHERE campaign = %(campaign)s)::timestamp,
    %(cohort_date)s::date - interval '1 day',
    interval '1 day'
) AS day
LEFT JOIN lifecycle.cohorts AS c ON c.campaign = %(campaign)s AND c.cohort_date = day::date
WHERE c.not_after IS NULL OR c.not_after > now()
ORDER BY day
