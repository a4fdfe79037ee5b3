-- Ready users held as stale, by maintenance, a run or the gate, whom no alert has told of yet and no run can mail any
-- more. While the cohort's own deadline is ahead, a later run may still judge whom a run with a shorter one held.
-- Looked up by key, so that the plan is the same however old the statistics are.
SELECT e.event_id, e.user_id, mine.cohort_date
FROM lifecycle.send_events AS e
CROSS JOIN LATERAL (
    SELECT s.cohort_date, s.held_reason
    FROM lifecycle.sends AS s
    WHERE s.user_id = e.user_id AND s.campaign = e.campaign AND s.occurrence = e.occurrence
    LIMIT 1
) AS mine
JOIN lifecycle.cohorts AS c ON c.campaign = e.campaign AND c.cohort_date = mine.cohort_date
WHERE e.campaign = %(campaign)s
  AND e.from_state = 'ready' AND e.held_reason = 'stale' AND e.alert_id IS NULL
  AND mine.held_reason = 'stale'
  AND c.not_after <= now()
ORDER BY e.event_id
FOR UPDATE OF e SKIP LOCKED
