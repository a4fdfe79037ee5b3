-- The gate: ready -> sending, one guarded update for a group of users, whose rows lock_sends has locked. Everybody
-- asked about gets one verdict: passed; suppressed or stale (held here and now); halted, provider_stopped or not_approved
-- (the row stays ready); lost (no longer ready: somebody else has it).
-- Rows are looked up by key and updated by ctid, so that the plan is the same however old the statistics are.
WITH asked AS MATERIALIZED (
    SELECT *
    FROM unnest(%(user_ids)s::text[], %(attempts)s::uuid[], %(address_hashes)s::bytea[])
        AS a (user_id, attempt, address_hash)
),
stopped AS MATERIALIZED (
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM lifecycle.halts
            WHERE lifted_at IS NULL AND (campaign IS NULL OR campaign = %(campaign)s)
        ) OR lifecycle.distrust() IS NOT NULL THEN 'halted'
        WHEN NOT %(probe)s AND EXISTS (
            SELECT FROM lifecycle.provider_stops
            WHERE resumed_at IS NULL AND smtp_conn_id = %(smtp_conn_id)s
        ) THEN 'provider_stopped'
    END AS verdict
),
judged AS MATERIALIZED (
    SELECT
        a.user_id,
        a.attempt,
        a.address_hash,
        mine.row_at,
        c.volume_verdict IN ('awaiting_approval', 'refused') AS held_back,
        CASE
            WHEN now() >= c.not_after THEN 'stale'
            WHEN EXISTS (
                SELECT FROM lifecycle.suppressions_in_force AS x
                WHERE x.user_id = a.user_id AND (x.campaign IS NULL OR x.campaign = %(campaign)s)
            ) OR EXISTS (
                SELECT FROM lifecycle.suppressions_in_force AS x
                WHERE x.address_hash = a.address_hash AND (x.campaign IS NULL OR x.campaign = %(campaign)s)
            ) THEN 'suppressed'
        END::lifecycle.held_reason AS hold
    FROM asked AS a
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at, s.cohort_date
        FROM lifecycle.sends AS s
        WHERE s.user_id = a.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1
    ) AS mine
    JOIN lifecycle.cohorts AS c ON c.campaign = %(campaign)s AND c.cohort_date = mine.cohort_date
    CROSS JOIN stopped
    WHERE stopped.verdict IS NULL
),
moved AS (
    UPDATE lifecycle.sends AS s
    SET state = CASE WHEN j.hold IS NULL THEN 'sending' ELSE 'held' END::lifecycle.send_state,
        held_reason = j.hold,
        detail = CASE j.hold
            WHEN 'stale' THEN 'past the deadline of its cohort, seen at the gate'
            WHEN 'suppressed' THEN 'on the suppression list, seen at the gate'
        END,
        attempt = CASE WHEN j.hold IS NULL THEN j.attempt ELSE s.attempt END,
        gate_at = CASE WHEN j.hold IS NULL THEN now() ELSE s.gate_at END,
        answer_due = CASE
            WHEN j.hold IS NULL THEN now() + make_interval(secs => %(answer_seconds)s)
            ELSE s.answer_due
        END,
        address_hash = j.address_hash,
        template_version = %(template_version)s,
        code_version = %(code_version)s,
        not_before = NULL
    FROM judged AS j
    WHERE s.ctid = j.row_at AND s.state = 'ready' AND (j.hold IS NOT NULL OR j.held_back IS NOT TRUE)
    RETURNING j.user_id, s.state, s.held_reason
)
SELECT
    asked.user_id,
    CASE
        WHEN moved.state = 'sending' THEN 'passed'
        WHEN moved.state = 'held' THEN moved.held_reason::text
        WHEN stopped.verdict IS NOT NULL THEN stopped.verdict
        WHEN EXISTS (SELECT FROM judged AS j WHERE j.user_id = asked.user_id AND j.held_back AND j.hold IS NULL) THEN 'not_approved'
        ELSE 'lost'
    END
FROM asked
CROSS JOIN stopped
LEFT JOIN moved USING (user_id)
