UPDATE lifecycle.send_events SET alert_id = %(alert_id)s WHERE event_id = ANY (%(event_ids)s)
