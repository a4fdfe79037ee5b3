-- planned or capped -> ready: takes the user's slot, under the cap lock.
UPDATE lifecycle.sends AS s
SET state = 'ready', held_reason = NULL, ready_at = now(), not_before = NULL, detail = NULL
FROM lifecycle.judgement AS j
WHERE j.campaign = %(campaign)s
  AND j.cohort_date = ANY (%(cohort_dates)s)
  AND j.hold IS NULL
  AND (j.state = 'planned' OR (j.state = 'held' AND j.held_reason = 'capped' AND %(judge_capped)s))
  AND NOT EXISTS (SELECT FROM refused AS r WHERE r.user_id = j.user_id)
  AND (s.user_id, s.campaign, s.occurrence) = (j.user_id, j.campaign, j.occurrence)
  AND s.state IN ('planned', 'held')
