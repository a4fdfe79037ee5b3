-- The newest actions, newest first; a campaign's with what stopped and freed all campaigns, and so it too.
SELECT action_id, happened_at, actor, actor_kind, database_role, action, arguments, reason, result, run_key
FROM lifecycle.actions
WHERE
    %(campaign)s::text IS NULL
    OR arguments ->> 'campaign' = %(campaign)s
    OR (arguments ->> 'campaign' IS NULL AND action IN ('halt', 'resume', 'restored'))
ORDER BY action_id DESC
LIMIT %(at_most)s
