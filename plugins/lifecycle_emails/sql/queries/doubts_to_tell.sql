-- Doubts that no alert has told of yet.
SELECT e.event_id, e.user_id, e.cohort_date, e.happened_at
FROM lifecycle.send_events AS e
WHERE e.campaign = %(campaign)s AND e.to_state = 'in_doubt' AND e.alert_id IS NULL
ORDER BY e.event_id
FOR UPDATE SKIP LOCKED
