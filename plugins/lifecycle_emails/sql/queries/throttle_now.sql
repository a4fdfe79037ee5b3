SELECT mails_per_second, effective_rate, day, granted_today, daily_maximum, timezone, slowed_at, slowed_because
FROM lifecycle.throttles_now
WHERE smtp_conn_id = %(smtp_conn_id)s
