-- The doubts that a person wants to settle, locked in the gate's order, with all that decides whether they may be.
SELECT
    s.user_id,
    s.cohort_date,
    s.queue_id,
    s.gate_at,
    greatest(s.answer_due, b.lease_until) AS wait_until,
    greatest(s.answer_due, b.lease_until) >= now() AS must_wait,
    c.not_after <= now() AS too_late
FROM lifecycle.sends AS s
JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
LEFT JOIN lifecycle.batches AS b USING (campaign, cohort_date, batch)
WHERE s.campaign = %(campaign)s
  AND s.state = 'in_doubt'
  AND (s.user_id, s.campaign) IN (
      SELECT e.user_id, e.campaign FROM lifecycle.send_events AS e
      WHERE e.to_state = 'in_doubt' AND e.campaign = %(campaign)s
  )
  AND (%(user_ids)s::text[] IS NULL OR s.user_id = ANY (%(user_ids)s))
  AND (%(cohort_from)s::date IS NULL OR s.cohort_date BETWEEN %(cohort_from)s AND %(cohort_to)s)
ORDER BY s.user_id
FOR UPDATE OF s
