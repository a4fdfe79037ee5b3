INSERT INTO lifecycle.extensions (campaign, cohort_from, cohort_to, days, extended_by, reason, cohorts, users)
VALUES (
    %(campaign)s, %(cohort_from)s, %(cohort_to)s, %(days)s, coalesce(nullif(%(actor)s, ''), session_user), %(reason)s,
    %(cohorts)s, %(users)s
)
