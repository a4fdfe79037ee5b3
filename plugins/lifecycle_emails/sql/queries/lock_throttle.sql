-- Connections are counted in the statement after this one, which then sees every lease that was taken before.
SELECT FROM lifecycle.throttles WHERE smtp_conn_id = %(smtp_conn_id)s FOR UPDATE
