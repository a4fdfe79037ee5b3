-- planned or ready -> held, where the one judgement says so. A gated row is not touched, nor an older reason.
-- Judged are only those rows of which rows_to_judge cannot say at a glance that they are sendable.
UPDATE lifecycle.judgement
SET state = 'held',
    held_reason = hold,
    not_before = NULL,
    detail = CASE hold WHEN 'stale' THEN 'past the deadline of its cohort' ELSE 'on the suppression list' END
WHERE row_at = ANY (ARRAY(SELECT lifecycle.rows_to_judge(%(campaign)s, %(cohort_dates)s)))
  AND state IN ('planned', 'ready')
  AND hold IS NOT NULL
