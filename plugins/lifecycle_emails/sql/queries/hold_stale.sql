-- Whom no run has mailed before the deadline of the cohort -> held as stale; how many of each cohort, and who
-- of these was planned in time and never judged. Whoever was ready is found by expired_to_tell; whoever was planned
-- when the deadline was past, as by a backfill, is no surprise.
WITH overdue AS MATERIALIZED (
    SELECT
        s.user_id,
        s.campaign,
        s.occurrence,
        s.state = 'planned' AND (s.ready_at IS NOT NULL OR s.planned_at < c.not_after) AS planned_in_time
    FROM lifecycle.sends AS s
    JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
    WHERE s.campaign = %(campaign)s
      AND c.closed_at IS NULL
      AND c.not_after <= now()
      AND s.state IN ('planned', 'ready')
),
held AS (
    UPDATE lifecycle.sends AS s
    SET state = 'held', held_reason = 'stale', not_before = NULL, detail = 'past the deadline of its cohort'
    FROM overdue AS o
    WHERE (s.user_id, s.campaign, s.occurrence) = (o.user_id, o.campaign, o.occurrence)
      AND s.state IN ('planned', 'ready') -- the gate may have let one pass meanwhile
    RETURNING s.user_id, s.cohort_date, o.planned_in_time
)
SELECT cohort_date, count(*), coalesce(array_agg(user_id) FILTER (WHERE planned_in_time), '{}')
FROM held
GROUP BY cohort_date
