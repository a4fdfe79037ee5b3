SELECT
    campaign, cohort_date, happened_at, from_state::text, to_state::text, held_reason::text, detail, actor
FROM lifecycle.send_events
WHERE user_id = %(user_id)s
ORDER BY event_id
