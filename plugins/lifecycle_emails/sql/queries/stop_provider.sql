INSERT INTO lifecycle.provider_stops (smtp_conn_id, reason) VALUES (%(smtp_conn_id)s, %(reason)s)
ON CONFLICT (smtp_conn_id) WHERE resumed_at IS NULL DO NOTHING
