SELECT pg_advisory_xact_lock(hashtextextended('lifecycle migrations', 0))
