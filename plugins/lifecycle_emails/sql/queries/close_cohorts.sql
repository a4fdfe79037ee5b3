UPDATE lifecycle.cohorts AS c
SET closed_at = now()
WHERE c.campaign = %(campaign)s
  AND c.closed_at IS NULL
  AND c.not_after <= now()
  AND NOT EXISTS (
      SELECT FROM lifecycle.sends AS s
      WHERE s.campaign = c.campaign AND s.cohort_date = c.cohort_date AND s.state IN ('planned', 'ready', 'sending')
  )
