-- Where the cohort before this one ended and where the one after it begins; NULL without such a cohort.
SELECT
    (SELECT window_end FROM lifecycle.cohorts
     WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s - 1),
    (SELECT window_start FROM lifecycle.cohorts
     WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s + 1)
