-- Whose address is no usable one takes no slot: `ready` means that a mail can be made and addressed.
UPDATE lifecycle.sends AS s
SET state = 'held', held_reason = 'invalid_address', not_before = NULL, detail = a.address_mistake
FROM arrivals AS a
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = %(cohort_date)s
  AND s.user_id = a.user_id
  AND s.occurrence = 'once'
  AND (s.state IN ('planned', 'ready') OR s.held_reason = 'capped')
  AND a.address_hash IS NULL
