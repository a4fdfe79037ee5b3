-- As many of the wanted connections as are free; lock_throttle comes before it.
INSERT INTO lifecycle.throttle_connections (holder, smtp_conn_id, connections, leased_until)
SELECT %(holder)s, t.smtp_conn_id, free.connections, now() + make_interval(secs => %(seconds)s)
FROM lifecycle.throttles AS t
CROSS JOIN LATERAL (
    SELECT least(%(wanted)s, t.connections - coalesce(sum(c.connections), 0))::integer AS connections
    FROM lifecycle.throttle_connections AS c
    WHERE c.smtp_conn_id = t.smtp_conn_id
) AS free
WHERE t.smtp_conn_id = %(smtp_conn_id)s AND free.connections > 0
RETURNING connections
