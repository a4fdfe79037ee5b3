UPDATE lifecycle.sends AS s
SET state = 'held', held_reason = 'stale', not_before = NULL, detail = 'past the deadline of its cohort'
FROM lifecycle.cohorts AS c
WHERE c.campaign = %(campaign)s
  AND c.closed_at IS NULL
  AND c.not_after <= now()
  AND s.campaign = c.campaign
  AND s.cohort_date = c.cohort_date
  AND s.state IN ('planned', 'ready')
