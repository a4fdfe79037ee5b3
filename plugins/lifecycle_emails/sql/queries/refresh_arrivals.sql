-- Somebody who came back into the audience is judged again, and a corrected address is judged by its new hash.
UPDATE lifecycle.sends AS s
SET address_hash = a.address_hash,
    state = CASE WHEN s.held_reason = 'left_audience' THEN 'planned' ELSE s.state END,
    held_reason = nullif(s.held_reason, 'left_audience')
FROM arrivals AS a
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = %(cohort_date)s
  AND s.user_id = a.user_id
  AND s.occurrence = 'once'
  AND s.state IN ('planned', 'held', 'ready')
  AND (s.held_reason = 'left_audience' OR s.address_hash IS DISTINCT FROM a.address_hash)
