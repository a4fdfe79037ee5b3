-- Which runs did which steps for these cohorts, in order of time.
SELECT t.campaign, t.cohort_date, t.step, t.run, t.started_at
FROM lifecycle.cohort_steps AS t
JOIN unnest(%(campaigns)s::text[], %(cohort_dates)s::date[]) AS k (campaign, cohort_date) USING (campaign, cohort_date)
ORDER BY t.started_at, t.step_id
