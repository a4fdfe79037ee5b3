-- The newest actions, newest first.
SELECT action_id, happened_at, actor, actor_kind, database_role, action, arguments, reason, result, run_key
FROM lifecycle.actions
WHERE %(campaign)s::text IS NULL OR arguments ->> 'campaign' = %(campaign)s
ORDER BY action_id DESC
LIMIT %(at_most)s
