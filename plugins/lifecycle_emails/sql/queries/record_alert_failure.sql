UPDATE lifecycle.alert_deliveries SET error = %(error)s
WHERE alert_id = %(alert_id)s AND callback = %(callback)s AND delivered_at IS NULL
