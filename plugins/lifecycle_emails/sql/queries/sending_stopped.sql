SELECT format('sending is halted (%%s) by %%s since %%s: %%s', coalesce(campaign, 'all campaigns'), halted_by, since::timestamptz(0), reason)
FROM lifecycle.halts
WHERE lifted_at IS NULL AND (campaign IS NULL OR campaign = %(campaign)s)
UNION ALL
SELECT distrust FROM lifecycle.distrust() WHERE distrust IS NOT NULL
UNION ALL
SELECT format('the SMTP provider %%s is stopped since %%s: %%s', smtp_conn_id, since::timestamptz(0), reason)
FROM lifecycle.provider_stops
WHERE resumed_at IS NULL AND smtp_conn_id = %(smtp_conn_id)s
