-- Doubts that no alert has told of yet; whatever evidence has settled meanwhile needs no telling.
SELECT e.event_id, e.user_id, e.cohort_date, e.happened_at
FROM lifecycle.send_events AS e
JOIN lifecycle.sends AS s USING (user_id, campaign, occurrence)
WHERE e.campaign = %(campaign)s AND e.to_state = 'in_doubt' AND e.alert_id IS NULL AND s.state = 'in_doubt'
ORDER BY e.event_id
FOR UPDATE OF e SKIP LOCKED
