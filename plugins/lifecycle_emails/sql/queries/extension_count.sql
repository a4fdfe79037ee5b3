-- What an extension of these cohorts would let be sent: cohorts, users not gated yet, and of these those now stale.
-- The extensions that these cohorts have had tell whoever approves whether somebody was faster.
-- Users held for another reason, and users not found by an extract yet, are judged by the next run.
SELECT
    count(DISTINCT c.cohort_date),
    count(s.user_id) FILTER (WHERE s.state IN ('planned', 'ready', 'held')),
    count(s.user_id) FILTER (WHERE s.held_reason = 'stale'),
    max(greatest(c.not_after, now()) + make_interval(days => %(days)s)),
    (
        SELECT count(*) FROM lifecycle.extensions AS e
        WHERE e.campaign = %(campaign)s AND e.cohort_from <= %(cohort_to)s AND e.cohort_to >= %(cohort_from)s
    )
FROM lifecycle.cohorts AS c
LEFT JOIN lifecycle.sends AS s USING (campaign, cohort_date)
WHERE c.campaign = %(campaign)s AND c.cohort_date BETWEEN %(cohort_from)s AND %(cohort_to)s
