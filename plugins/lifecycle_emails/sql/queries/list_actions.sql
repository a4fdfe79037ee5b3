-- The newest actions, newest first; a campaign's with what stopped and freed all campaigns, and so it too. What was
-- answered about a cohort of unusual size stands in a table of its own; its later release is an action already.
WITH done AS (
    SELECT action_id, happened_at, actor, actor_kind, database_role, action, arguments, reason, result, run_key
    FROM lifecycle.actions
    UNION ALL
    SELECT
        NULL, decided_at, decided_by, CASE WHEN by_a_person THEN 'airflow' ELSE 'nobody' END, database_role,
        CASE verdict WHEN 'approved' THEN 'approve_cohort' ELSE 'refuse_cohort' END,
        jsonb_build_object('campaign', campaign, 'cohort_date', cohort_date, 'size', size),
        reason, 'cohort ' || cohort_date || ' of ' || size || ' users ' || verdict, NULL
    FROM lifecycle.volume_decisions
    WHERE from_verdict = 'awaiting_approval'
)
SELECT action_id, happened_at, actor, actor_kind, database_role, action, arguments, reason, result, run_key
FROM done
WHERE
    %(campaign)s::text IS NULL
    OR arguments ->> 'campaign' = %(campaign)s
    OR (arguments ->> 'campaign' IS NULL AND action IN ('halt', 'resume', 'restored'))
ORDER BY happened_at DESC, action_id DESC
LIMIT %(at_most)s
