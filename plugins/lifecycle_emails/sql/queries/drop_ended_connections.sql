DELETE FROM lifecycle.throttle_connections WHERE smtp_conn_id = %(smtp_conn_id)s AND leased_until <= now()
