-- Runs after index_arrivals. In a cohort that is planned for the first time there is nobody who could have left.
UPDATE lifecycle.sends AS s
SET state = 'held', held_reason = 'left_audience', detail = 'the audience query no longer returns this user'
WHERE NOT %(first_time)s
  AND s.campaign = %(campaign)s
  AND s.cohort_date = %(cohort_date)s
  AND (s.state IN ('planned', 'ready') OR s.held_reason = 'capped')
  AND NOT EXISTS (SELECT FROM arrivals AS a WHERE a.user_id = s.user_id OFFSET 0)
