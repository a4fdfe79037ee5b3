SELECT smtp_conn_id, since, reason, probed_at FROM lifecycle.provider_stops WHERE resumed_at IS NULL ORDER BY since
