-- The terms of a throttle as the file has them now; what was granted stays counted.
INSERT INTO lifecycle.throttles AS t
    (smtp_conn_id, mails_per_second, mails_per_day, timezone, warm_up_first_day, warm_up_mails_per_day, connections)
VALUES (
    %(smtp_conn_id)s, %(mails_per_second)s, %(mails_per_day)s, %(timezone)s, %(warm_up_first_day)s,
    %(warm_up_mails_per_day)s::integer[], %(connections)s
)
ON CONFLICT (smtp_conn_id) DO UPDATE
SET mails_per_second = excluded.mails_per_second,
    mails_per_day = excluded.mails_per_day,
    timezone = excluded.timezone,
    warm_up_first_day = excluded.warm_up_first_day,
    warm_up_mails_per_day = excluded.warm_up_mails_per_day,
    connections = excluded.connections
WHERE (
    t.mails_per_second, t.mails_per_day, t.timezone, t.warm_up_first_day, t.warm_up_mails_per_day, t.connections
) IS DISTINCT FROM (
    excluded.mails_per_second, excluded.mails_per_day, excluded.timezone, excluded.warm_up_first_day,
    excluded.warm_up_mails_per_day, excluded.connections
)
