-- The oldest cohorts, made to look closed long ago, so that retention takes these and no others.
UPDATE lifecycle.cohorts SET closed_at = now() - interval '500 days'
WHERE cohort_date < %(first)s::date + %(cohorts)s::integer
