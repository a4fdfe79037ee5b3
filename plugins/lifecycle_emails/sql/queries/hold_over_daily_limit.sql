-- Whoever is left by the cap and has no room left today, by the daily limits: held, and kept from a slot as the refused
-- are. Of today's room the oldest cohort takes first, then the lowest id. A null rule is no rule of the cap.
WITH over_limit AS (
    INSERT INTO refused (user_id, cohort_date, rule, slots_taken)
    SELECT j.user_id, j.cohort_date, NULL, 0
    FROM lifecycle.judgement AS j
    WHERE j.campaign = %(campaign)s
      AND j.cohort_date = ANY (%(cohort_dates)s)
      AND (
          j.state = 'planned'
          OR (
              j.hold IS NULL AND j.state = 'held'
              AND (j.held_reason = 'daily_limit' OR (j.held_reason = 'capped' AND %(judge_capped)s))
          )
      )
      AND NOT EXISTS (SELECT FROM refused AS r WHERE r.user_id = j.user_id OFFSET 0)
    ORDER BY j.cohort_date, j.user_id
    OFFSET %(room)s
    RETURNING user_id
)
UPDATE lifecycle.sends AS s
SET state = 'held', held_reason = 'daily_limit', detail = %(limits)s
FROM over_limit
WHERE s.user_id = over_limit.user_id
  AND s.campaign = %(campaign)s
  AND s.occurrence = 'once'
  AND s.held_reason IS DISTINCT FROM 'daily_limit'
