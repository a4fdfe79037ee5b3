-- in_doubt -> sent or rejected, by the word of a log; rows locked in the order that the gate locks them in.
-- sent_at is the server's time where it has one, but none to come and none before the gate: a log in another time zone
-- must give no slot of the cap away. Else answer_due, later than any answer.
WITH verdicts AS MATERIALIZED (
    SELECT *
    FROM unnest(
        %(campaigns)s::text[], %(user_ids)s::text[], %(states)s::text[],
        %(times)s::timestamptz[], %(queue_ids)s::text[], %(details)s::text[]
    ) AS v (campaign, user_id, state, at, queue_id, detail)
),
locked AS MATERIALIZED (
    SELECT s.user_id, s.campaign
    FROM verdicts AS v
    JOIN lifecycle.sends AS s ON s.user_id = v.user_id AND s.campaign = v.campaign AND s.occurrence = 'once'
    WHERE s.state = 'in_doubt'
    ORDER BY s.campaign, s.user_id
    FOR UPDATE OF s
)
UPDATE lifecycle.sends AS s
SET state = v.state::lifecycle.send_state,
    sent_at = CASE
        WHEN v.state <> 'sent' THEN NULL
        WHEN v.at IS NULL THEN s.answer_due
        ELSE greatest(least(v.at, now()), s.gate_at)
    END,
    -- a bounce under no known queue id has one too: that is what forbids to release the mail
    queue_id = coalesce(v.queue_id, s.queue_id, CASE WHEN v.state = 'rejected' THEN 'unknown' END),
    detail = v.detail
FROM verdicts AS v
JOIN locked USING (user_id, campaign)
WHERE s.user_id = v.user_id AND s.campaign = v.campaign AND s.occurrence = 'once' AND s.state = 'in_doubt'
RETURNING s.state::text
