-- Somebody who came back into the audience is judged again, and a corrected address is judged by its new hash.
-- Held for the address: judged again once it is usable, and not before. It was broken when read, or the mail server
-- could not take it.
UPDATE lifecycle.sends AS s
SET address_hash = a.address_hash,
    state = CASE WHEN s.held_reason IN ('left_audience', 'invalid_address') THEN 'planned' ELSE s.state END,
    held_reason = CASE WHEN s.held_reason IN ('left_audience', 'invalid_address') THEN NULL ELSE s.held_reason END
FROM arrivals AS a
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = %(cohort_date)s
  AND s.user_id = a.user_id
  AND s.occurrence = 'once'
  AND s.state IN ('planned', 'held', 'ready')
  AND CASE s.held_reason
      WHEN 'left_audience' THEN true
      WHEN 'invalid_address' THEN a.address_hash IS NOT NULL
      ELSE s.address_hash IS DISTINCT FROM a.address_hash
  END
