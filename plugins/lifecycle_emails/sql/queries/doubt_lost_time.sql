-- The release: what may have been sent in the time that the ledger has forgotten becomes in doubt.
UPDATE lifecycle.sends AS s
SET state = 'in_doubt',
    held_reason = NULL,
    not_before = NULL,
    attempt = gen_random_uuid(),
    ready_at = t.since,
    gate_at = t.since,
    answer_due = t.released_at,
    detail = 'the ledger went back in time; perhaps sent since'
FROM lifecycle.lost_time AS t
WHERE t.released_at = now()
  AND s.campaign = t.campaign
  AND s.cohort_date = t.cohort_date
  AND s.state IN ('planned', 'held', 'ready')
