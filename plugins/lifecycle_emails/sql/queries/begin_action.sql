-- No row: this run has done its action before, or another task of it is at it and has just committed.
INSERT INTO lifecycle.actions (actor, actor_kind, action, arguments, reason, run_key)
VALUES (%(actor)s, %(actor_kind)s, %(action)s, %(arguments)s, %(reason)s, %(run_key)s)
ON CONFLICT (run_key) DO NOTHING
RETURNING action_id
