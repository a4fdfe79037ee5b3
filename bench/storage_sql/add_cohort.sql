INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone, offset_days, not_after)
VALUES (
    %(campaign)s,
    %(cohort_date)s,
    %(cohort_date)s::date::timestamptz,
    %(cohort_date)s::date::timestamptz + interval '1 day',
    'UTC',
    4,
    greatest(now(), %(cohort_date)s::date::timestamptz) + interval '3 days'
)
