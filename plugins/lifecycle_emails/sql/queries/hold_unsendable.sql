-- planned or ready -> held, where the one judgement says so. A gated row is not touched, nor an older reason.
UPDATE lifecycle.judgement
SET state = 'held',
    held_reason = hold,
    not_before = NULL,
    detail = CASE hold WHEN 'stale' THEN 'past the deadline of its cohort' ELSE 'on the suppression list' END
WHERE campaign = %(campaign)s
  AND cohort_date = ANY (%(cohort_dates)s)
  AND state IN ('planned', 'ready')
  AND hold IS NOT NULL
