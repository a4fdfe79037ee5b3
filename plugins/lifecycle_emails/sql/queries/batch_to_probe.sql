-- One batch of the campaign with a user who may be mailed now.
SELECT s.cohort_date, s.batch
FROM lifecycle.sends AS s
JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
WHERE s.campaign = %(campaign)s
  AND c.closed_at IS NULL
  AND c.not_after > now()
  AND (c.volume_verdict IS NULL OR c.volume_verdict NOT IN ('awaiting_approval', 'refused'))
  AND s.state = 'ready'
  AND (s.not_before IS NULL OR s.not_before <= now())
LIMIT 1
