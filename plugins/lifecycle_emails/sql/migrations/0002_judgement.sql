-- Views: who holds a slot under the frequency cap, and who may be sent.

-- The user's slots under the frequency cap. A slot counts in a window while slot_at > now() - window. Daily limits count
-- the same slots, found through the few cohorts that could be mailed on a day.
CREATE VIEW lifecycle.cap_slots AS
SELECT
    user_id,
    campaign,
    state,
    CASE state
        WHEN 'sent' THEN sent_at
        WHEN 'in_doubt' THEN answer_due
        ELSE timestamptz 'infinity'
    END AS slot_at,
    cohort_date
FROM lifecycle.sends
WHERE state IN ('ready', 'sending', 'in_doubt', 'sent');

CREATE VIEW lifecycle.suppressions_in_force AS
SELECT user_id, address_hash, campaign
FROM lifecycle.suppressions
WHERE lifted_at IS NULL AND since <= now();

-- The filter's predicate, in one place: filter_ledger and limit_rate both go by it. NULL means "may be sent".
-- A view of one table, so that an UPDATE goes through it, and everything about a row is looked up by key: the
-- planner has no join to get wrong. Its statistics know nothing of a cohort planned a minute ago, it expects one
-- row, and joins that suit one row take hours for a hundred thousand.
CREATE VIEW lifecycle.judgement AS
SELECT
    s.user_id,
    s.campaign,
    s.occurrence,
    s.cohort_date,
    s.batch,
    s.state,
    s.held_reason,
    s.ready_at,
    s.not_before,
    s.detail,
    s.ctid AS row_at,
    CASE
        WHEN now() >= (
            SELECT c.not_after FROM lifecycle.cohorts AS c
            WHERE c.campaign = s.campaign AND c.cohort_date = s.cohort_date
        ) THEN 'stale'
        WHEN EXISTS (
            SELECT FROM lifecycle.suppressions_in_force AS x
            WHERE x.user_id = s.user_id AND (x.campaign IS NULL OR x.campaign = s.campaign)
        ) OR EXISTS (
            SELECT FROM lifecycle.suppressions_in_force AS x
            WHERE x.address_hash = s.address_hash AND (x.campaign IS NULL OR x.campaign = s.campaign)
        ) THEN 'suppressed'
    END::lifecycle.held_reason AS hold
FROM lifecycle.sends AS s;

-- Rows of cohorts that the judgement might hold: all others are sendable, and need not be judged one by one, which took
-- a quarter of the time of a plan. Found by hash joins, whatever the statistics say: one pass over the cohort for each
-- kind of suppression, and one over the suppressions.
CREATE FUNCTION lifecycle.rows_to_judge(of_campaign text, of_cohorts date[]) RETURNS SETOF tid LANGUAGE sql STABLE
SET enable_nestloop = off SET enable_mergejoin = off AS $$
    SELECT s.ctid
    FROM lifecycle.sends AS s
    JOIN lifecycle.suppressions_in_force AS x ON x.user_id = s.user_id
    WHERE s.campaign = of_campaign AND s.cohort_date = ANY (of_cohorts) AND s.state IN ('planned', 'ready')
    UNION ALL
    SELECT s.ctid
    FROM lifecycle.sends AS s
    JOIN lifecycle.suppressions_in_force AS x ON x.address_hash = s.address_hash
    WHERE s.campaign = of_campaign AND s.cohort_date = ANY (of_cohorts) AND s.state IN ('planned', 'ready')
    UNION ALL
    SELECT s.ctid
    FROM lifecycle.sends AS s
    WHERE s.campaign = of_campaign AND s.state IN ('planned', 'ready')
      AND s.cohort_date = ANY (ARRAY(
          SELECT c.cohort_date FROM lifecycle.cohorts AS c
          WHERE c.campaign = of_campaign AND c.cohort_date = ANY (of_cohorts) AND c.not_after <= now()
      ))
$$;
