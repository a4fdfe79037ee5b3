-- 365 past days of each campaign, all over: a cohort closes when its deadline, seven days after its day, is past.
INSERT INTO lifecycle.cohorts
    (campaign, cohort_date, window_start, window_end, timezone, offset_days, not_after, closed_at)
SELECT
    campaign, day::date, day, day + interval '1 day', 'UTC', 4, day + interval '7 days 6 hours',
    CASE WHEN day + interval '7 days 6 hours' < now() THEN day + interval '7 days 7 hours' END
FROM unnest(%(campaigns)s::text[]) AS campaign
CROSS JOIN generate_series(%(first)s::date::timestamptz, %(last)s::date::timestamptz, interval '1 day') AS day
