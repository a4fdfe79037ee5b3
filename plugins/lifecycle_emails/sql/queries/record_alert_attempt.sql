INSERT INTO lifecycle.alert_deliveries AS d (alert_id, callback, attempts, attempted_at)
VALUES (%(alert_id)s, %(callback)s, 1, now())
ON CONFLICT (alert_id, callback) DO UPDATE SET attempts = d.attempts + 1, attempted_at = now()
