-- rejected or capped -> planned, by a person, in rows that lock_released has locked. The next run judges them again:
-- suppression, cap and deadline hold. History has a row of a rejection's end by trigger; of a capped user's it is made here.
WITH released AS (
    UPDATE lifecycle.sends AS s
    SET state = 'planned', held_reason = NULL, not_before = NULL, detail = %(detail)s
    FROM (SELECT user_id, state FROM lifecycle.sends WHERE campaign = %(campaign)s AND occurrence = 'once'
        AND user_id = ANY (%(user_ids)s)) AS before
    WHERE s.campaign = %(campaign)s
      AND s.user_id = before.user_id
      AND s.occurrence = 'once'
      AND (s.state = 'rejected' OR s.held_reason = 'capped')
    RETURNING s.user_id, s.campaign, s.occurrence, s.cohort_date, before.state AS from_state
),
told AS (
    INSERT INTO lifecycle.send_events (user_id, campaign, occurrence, cohort_date, from_state, to_state, detail)
    SELECT user_id, campaign, occurrence, cohort_date, from_state, 'planned', %(detail)s
    FROM released
    WHERE from_state = 'held'
)
SELECT user_id FROM released
