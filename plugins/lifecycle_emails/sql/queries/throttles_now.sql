-- Every throttle as it stands now, or (smtp_conn_id) one.
SELECT
    smtp_conn_id, mails_per_second, effective_rate, next_free_at, day, day_ends, granted_today, daily_maximum, timezone,
    slowed_at, slowed_because
FROM lifecycle.throttles_now
WHERE smtp_conn_id = coalesce(%(smtp_conn_id)s, smtp_conn_id)
ORDER BY smtp_conn_id
