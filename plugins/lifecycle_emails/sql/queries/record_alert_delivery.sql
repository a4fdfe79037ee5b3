UPDATE lifecycle.alert_deliveries SET delivered_at = now(), error = NULL
WHERE alert_id = %(alert_id)s AND callback = %(callback)s
