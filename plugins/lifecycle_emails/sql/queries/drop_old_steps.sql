DELETE FROM lifecycle.cohort_steps WHERE started_at < now() - %(keep)s::interval
