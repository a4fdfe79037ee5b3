UPDATE lifecycle.alerts SET escalated_at = now() WHERE alert_id = %(alert_id)s AND escalated_at IS NULL
