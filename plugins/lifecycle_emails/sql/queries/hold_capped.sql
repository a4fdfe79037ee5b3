UPDATE lifecycle.sends AS s
SET state = 'held',
    held_reason = 'capped',
    detail = (SELECT 'frequency cap: ' || string_agg(r.rule, ', ' ORDER BY r.rule) FROM refused AS r WHERE r.user_id = s.user_id)
WHERE s.campaign = %(campaign)s
  AND s.cohort_date = ANY (%(cohort_dates)s)
  AND (s.state = 'planned' OR s.held_reason = 'daily_limit')
  AND EXISTS (SELECT FROM refused) -- asked once: most often it is nobody, and no user is looked for
  AND EXISTS (SELECT FROM refused AS r WHERE r.user_id = s.user_id OFFSET 0)
