-- The users whom a person wants to release, locked in the gate's order, with all that decides whether they may be.
SELECT
    s.user_id,
    s.cohort_date,
    s.state = 'rejected' OR s.held_reason = 'capped' AS can_be_released,
    s.queue_id,
    concat_ws(', ', s.state, s.held_reason) AS told,
    c.not_after <= now() AS too_late
FROM lifecycle.sends AS s
JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
WHERE s.campaign = %(campaign)s AND s.user_id = ANY (%(user_ids)s) AND s.occurrence = 'once'
ORDER BY s.user_id
FOR UPDATE OF s
