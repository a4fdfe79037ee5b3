-- Days since the campaign's first cohort that should have been planned by now, were not, and were not told of yet.
SELECT day::date
FROM generate_series(
    (SELECT min(cohort_date) FROM lifecycle.cohorts WHERE campaign = %(campaign)s)::timestamp,
    %(newest)s::date,
    interval '1 day'
) AS day
WHERE NOT EXISTS (
    SELECT FROM lifecycle.cohorts AS c WHERE c.campaign = %(campaign)s AND c.cohort_date = day::date
)
AND NOT EXISTS (
    SELECT FROM lifecycle.alerts AS a
    WHERE a.kind = 'missing_cohorts' AND a.campaign = %(campaign)s AND a.facts -> 'cohort_dates' ? day::date::text
)
ORDER BY day
