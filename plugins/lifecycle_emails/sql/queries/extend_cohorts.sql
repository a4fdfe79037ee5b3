-- From now on, or from a deadline that is still to come, so many days more. Open again for sweeps and runs.
UPDATE lifecycle.cohorts
SET not_after = greatest(not_after, now()) + make_interval(days => %(days)s), closed_at = NULL
WHERE campaign = %(campaign)s AND cohort_date BETWEEN %(cohort_from)s AND %(cohort_to)s
RETURNING cohort_date
