SELECT a.alert_id, a.kind, a.campaign, a.cohort_date, a.run, a.created_at, a.facts
FROM lifecycle.alerts AS a
WHERE a.escalated_at IS NULL
  AND (%(campaign)s::text IS NULL OR a.campaign = %(campaign)s)
  AND a.created_at <= now() - %(older_than)s::interval
  AND EXISTS (
      SELECT FROM unnest(a.callbacks) AS c (callback)
      WHERE NOT EXISTS (
          SELECT FROM lifecycle.alert_deliveries AS d
          WHERE d.alert_id = a.alert_id AND d.callback = c.callback AND d.delivered_at IS NOT NULL
      )
  )
ORDER BY a.created_at, a.alert_id
