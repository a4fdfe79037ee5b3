DELETE FROM lifecycle.cap_refusals WHERE refused_at < now() - %(keep)s::interval
