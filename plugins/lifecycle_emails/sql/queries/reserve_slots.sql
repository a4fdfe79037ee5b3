-- planned, capped or over yesterday's limit -> ready: takes the user's slot, under the cap lock. Whoever is planned
-- after hold_unsendable may be sent; whoever was held by the cap or the daily limit is judged here.
-- OFFSET 0 keeps the look-up one by one, through the index; as a join it was once planned as all against all.
UPDATE lifecycle.judgement AS j
SET state = 'ready', held_reason = NULL, ready_at = now(), not_before = NULL, detail = NULL
WHERE j.campaign = %(campaign)s
  AND j.cohort_date = ANY (%(cohort_dates)s)
  AND (
      j.state = 'planned'
      OR (
          j.state = 'held'
          AND (j.held_reason = 'daily_limit' OR (j.held_reason = 'capped' AND %(judge_capped)s))
          AND j.hold IS NULL
      )
  )
  AND NOT EXISTS (SELECT FROM refused AS r WHERE r.user_id = j.user_id OFFSET 0)
