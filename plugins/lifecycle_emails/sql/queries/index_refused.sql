-- The two statements that read it look up one user after the other.
CREATE INDEX ON refused (user_id)
