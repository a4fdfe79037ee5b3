-- Users who first come into a cohort that could be sent in a forgotten time, and users of a cohort that an extension lets
-- be sent in it: perhaps that was so before, and they were mailed. Whom this restore has doubted was gated at t.since as far
-- as the ledger knows; whoever was gated before, or never, was not looked at yet.
UPDATE lifecycle.sends AS s
SET state = 'in_doubt',
    held_reason = NULL,
    not_before = NULL,
    attempt = gen_random_uuid(),
    ready_at = t.since,
    gate_at = t.since,
    answer_due = t.released_at,
    detail = 'planned after the ledger went back in time; perhaps sent before'
FROM (
    SELECT since, released_at
    FROM lifecycle.lost_time
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
    ORDER BY released_at DESC
    LIMIT 1
) AS t
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = %(cohort_date)s
  AND s.state IN ('planned', 'held', 'ready')
  AND (s.attempt IS NULL OR s.gate_at < t.since)
