-- What stops sending now: halts, by campaign (NULL: all), stopped mail servers, and a ledger that is not to be trusted.
SELECT 'halt', campaign, since, reason, halted_by FROM lifecycle.halts WHERE lifted_at IS NULL
UNION ALL
SELECT 'stopped mail server', NULL, since, smtp_conn_id || ': ' || reason, 'the package'
FROM lifecycle.provider_stops WHERE resumed_at IS NULL
UNION ALL
SELECT
    'halt', NULL, coalesce((SELECT found_at FROM lifecycle.restores WHERE released_at IS NULL), now()), distrust, 'the package'
FROM lifecycle.distrust() WHERE distrust IS NOT NULL
ORDER BY 3
