-- What stops sending now: halts, by campaign (NULL: all), and stopped mail servers.
SELECT 'halt', campaign, since, reason, halted_by FROM lifecycle.halts WHERE lifted_at IS NULL
UNION ALL
SELECT 'stopped mail server', NULL, since, smtp_conn_id || ': ' || reason, 'the package'
FROM lifecycle.provider_stops WHERE resumed_at IS NULL
ORDER BY 3
