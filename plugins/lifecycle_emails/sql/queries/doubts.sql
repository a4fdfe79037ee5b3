-- Every send in doubt, found through its history: no index of sends mentions a state.
SELECT s.campaign, s.cohort_date, s.user_id, s.queue_id, s.gate_at, s.answer_due
FROM lifecycle.sends AS s
WHERE s.state = 'in_doubt'
  AND (s.user_id, s.campaign) IN (
      SELECT e.user_id, e.campaign
      FROM lifecycle.send_events AS e
      WHERE e.to_state = 'in_doubt' AND (%(campaign)s::text IS NULL OR e.campaign = %(campaign)s)
  )
ORDER BY s.campaign, s.cohort_date, s.user_id
