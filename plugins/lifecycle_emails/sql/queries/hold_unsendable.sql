-- planned or ready -> held, where the one judgement says so. A gated row is not touched, nor an older reason.
UPDATE lifecycle.sends AS s
SET state = 'held',
    held_reason = j.hold,
    not_before = NULL,
    detail = CASE j.hold WHEN 'stale' THEN 'past the deadline of its cohort' ELSE 'on the suppression list' END
FROM lifecycle.judgement AS j
WHERE j.campaign = %(campaign)s
  AND j.cohort_date = ANY (%(cohort_dates)s)
  AND j.hold IS NOT NULL
  AND j.state IN ('planned', 'ready')
  AND (s.user_id, s.campaign, s.occurrence) = (j.user_id, j.campaign, j.occurrence)
  AND s.state IN ('planned', 'ready')
