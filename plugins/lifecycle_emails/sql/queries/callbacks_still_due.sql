SELECT c.callback
FROM unnest(%(callbacks)s::text[]) WITH ORDINALITY AS c (callback, position)
LEFT JOIN lifecycle.alert_deliveries AS d ON d.alert_id = %(alert_id)s AND d.callback = c.callback
WHERE d.delivered_at IS NULL
ORDER BY coalesce(d.attempts, 0), c.position
