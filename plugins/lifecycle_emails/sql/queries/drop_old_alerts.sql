DELETE FROM lifecycle.alerts WHERE created_at < now() - %(keep)s::interval
