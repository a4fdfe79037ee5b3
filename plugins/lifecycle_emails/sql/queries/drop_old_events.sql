DELETE FROM lifecycle.send_events WHERE happened_at < now() - %(keep)s::interval
