-- Whom limit_rate would judge or send_batch would mail, but not in this run, whose deadline is shorter -> held as stale.
-- Before the cohort's own deadline a later run judges them again; a slot is given back.
UPDATE lifecycle.judgement
SET state = 'held', held_reason = 'stale', not_before = NULL, detail = %(late_detail)s
WHERE campaign = %(campaign)s
  AND cohort_date = ANY (%(late_dates)s)
  AND hold IS NULL
  AND (
      state IN ('planned', 'ready')
      OR (state = 'held' AND (held_reason = 'daily_limit' OR (held_reason = 'capped' AND %(judge_capped)s)))
  )
