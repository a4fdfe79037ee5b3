DELETE FROM lifecycle.witness_marks WHERE marked_at < now() - %(keep)s::interval
