-- As the ledger's own; the key table leads to the one partition that holds a user's row.
WITH asked AS (
    SELECT *
    FROM unnest(%(user_ids)s::text[], %(attempts)s::uuid[], %(address_hashes)s::bytea[])
        AS a (user_id, attempt, address_hash)
),
stopped AS (
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM lifecycle.halts
            WHERE lifted_at IS NULL AND (campaign IS NULL OR campaign = %(campaign)s)
        ) THEN 'halted'
        WHEN NOT %(probe)s AND EXISTS (
            SELECT FROM lifecycle.provider_stops
            WHERE resumed_at IS NULL AND smtp_conn_id = %(smtp_conn_id)s
        ) THEN 'provider_stopped'
    END AS verdict
),
-- judged once per user: materialized, or the planner copies the judgement into every column that asks for it
judged AS MATERIALIZED (
    SELECT
        a.user_id,
        a.attempt,
        a.address_hash,
        c.cohort_date,
        CASE
            WHEN now() >= c.not_after THEN 'stale'
            WHEN EXISTS (
                SELECT FROM lifecycle.suppressions AS x
                WHERE x.lifted_at IS NULL AND x.since <= now()
                  AND x.user_id = a.user_id AND (x.campaign IS NULL OR x.campaign = %(campaign)s)
            ) OR EXISTS (
                SELECT FROM lifecycle.suppressions AS x
                WHERE x.lifted_at IS NULL AND x.since <= now()
                  AND x.address_hash = a.address_hash AND (x.campaign IS NULL OR x.campaign = %(campaign)s)
            ) THEN 'suppressed'
        END::lifecycle.held_reason AS hold
    FROM asked AS a
    JOIN lifecycle.send_keys AS mine
        ON mine.user_id = a.user_id AND mine.campaign = %(campaign)s AND mine.occurrence = 'once'
    JOIN lifecycle.cohorts AS c ON c.campaign = %(campaign)s AND c.cohort_date = mine.cohort_date
    CROSS JOIN stopped
    WHERE stopped.verdict IS NULL
),
moved AS (
    UPDATE lifecycle.sends AS s
    SET state = CASE WHEN v.hold IS NULL THEN 'sending' ELSE 'held' END::lifecycle.send_state,
        held_reason = v.hold,
        detail = CASE v.hold
            WHEN 'stale' THEN 'past the deadline of its cohort, seen at the gate'
            WHEN 'suppressed' THEN 'on the suppression list, seen at the gate'
        END,
        attempt = CASE WHEN v.hold IS NULL THEN v.attempt ELSE s.attempt END,
        gate_at = CASE WHEN v.hold IS NULL THEN now() ELSE s.gate_at END,
        answer_due = CASE WHEN v.hold IS NULL THEN now() + make_interval(secs => %(answer_seconds)s) ELSE s.answer_due END,
        address_hash = v.address_hash,
        template_version = %(template_version)s,
        not_before = NULL
    FROM judged AS v
    WHERE s.user_id = v.user_id
      AND s.campaign = %(campaign)s
      AND s.occurrence = 'once'
      AND s.cohort_date = v.cohort_date
      AND s.state = 'ready'
    RETURNING s.user_id, s.state, s.held_reason
)
SELECT
    asked.user_id,
    CASE
        WHEN moved.state = 'sending' THEN 'passed'
        WHEN moved.state = 'held' THEN moved.held_reason::text
        ELSE coalesce(stopped.verdict, 'lost')
    END
FROM asked
CROSS JOIN stopped
LEFT JOIN moved USING (user_id)
