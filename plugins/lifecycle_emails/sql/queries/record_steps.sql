INSERT INTO lifecycle.cohort_steps (campaign, cohort_date, step, run, started_at, code_version)
SELECT %(campaign)s, day, %(step)s, %(run)s, coalesce(%(started_at)s, now()), %(code_version)s
FROM unnest(%(cohort_dates)s::date[]) AS day
