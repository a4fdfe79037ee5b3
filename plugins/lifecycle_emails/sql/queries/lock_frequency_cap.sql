-- Taken in a statement of its own: the count in the next statement then sees every slot committed before.
SELECT pg_advisory_xact_lock(hashtextextended('lifecycle frequency cap', 0))
