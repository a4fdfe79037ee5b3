INSERT INTO lifecycle.cohorts (campaign, cohort_date, window_start, window_end, timezone, offset_days, not_after)
VALUES (
    %(campaign)s, %(cohort_date)s, %(window_start)s, %(window_end)s, %(timezone)s, %(offset_days)s, %(not_after)s
)
