-- Whom no run has mailed before the deadline of the cohort -> held as stale; how many of each cohort, and who of these
-- the team must be told of. Whoever was planned when the deadline was past, as by a backfill, is no surprise.
WITH held AS (
    UPDATE lifecycle.sends AS s
    SET state = 'held', held_reason = 'stale', not_before = NULL, detail = 'past the deadline of its cohort'
    FROM lifecycle.cohorts AS c
    WHERE c.campaign = %(campaign)s
      AND c.closed_at IS NULL
      AND c.not_after <= now()
      AND s.campaign = c.campaign
      AND s.cohort_date = c.cohort_date
      AND s.state IN ('planned', 'ready')
    RETURNING s.user_id, s.cohort_date, s.ready_at IS NOT NULL OR s.planned_at < c.not_after AS was_in_time
)
SELECT cohort_date, count(*), coalesce(array_agg(user_id) FILTER (WHERE was_in_time), '{}')
FROM held
GROUP BY cohort_date
