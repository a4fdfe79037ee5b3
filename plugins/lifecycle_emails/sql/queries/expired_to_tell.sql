-- Ready users held as stale, by maintenance, a run or the gate, whom no alert has told of yet and no run can mail any
-- more. While the cohort's own deadline is ahead, a later run may still judge whom a run with a shorter one held.
SELECT e.event_id, e.user_id, s.cohort_date
FROM lifecycle.send_events AS e
JOIN lifecycle.sends AS s USING (user_id, campaign, occurrence)
JOIN lifecycle.cohorts AS c ON c.campaign = s.campaign AND c.cohort_date = s.cohort_date
WHERE e.campaign = %(campaign)s
  AND e.from_state = 'ready' AND e.held_reason = 'stale' AND e.alert_id IS NULL
  AND s.held_reason = 'stale'
  AND c.not_after <= now()
ORDER BY e.event_id
FOR UPDATE OF e SKIP LOCKED
