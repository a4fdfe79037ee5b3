UPDATE lifecycle.provider_stops
SET probed_at = now(), resumed_at = CASE WHEN %(accepted)s THEN now() END
WHERE smtp_conn_id = %(smtp_conn_id)s AND resumed_at IS NULL
