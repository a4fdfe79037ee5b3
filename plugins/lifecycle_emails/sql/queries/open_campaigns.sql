SELECT DISTINCT campaign FROM lifecycle.cohorts WHERE closed_at IS NULL
UNION
SELECT DISTINCT campaign FROM lifecycle.send_events WHERE to_state = 'in_doubt' AND alert_id IS NULL
UNION
SELECT DISTINCT campaign FROM lifecycle.send_events
WHERE from_state = 'ready' AND held_reason = 'stale' AND alert_id IS NULL
ORDER BY campaign
