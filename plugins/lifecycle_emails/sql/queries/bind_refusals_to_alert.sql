UPDATE lifecycle.cap_refusals SET alert_id = %(alert_id)s WHERE refusal_id = ANY (%(refusal_ids)s)
