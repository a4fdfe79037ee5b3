-- Lock these users' rows in order of their ids, so that two groups never wait for each other in a circle, and the
-- statements that follow see their newest state. Waits for a COMMIT that is still under way.
SELECT k.user_id
FROM unnest(%(user_ids)s::text[]) AS k (user_id)
CROSS JOIN LATERAL (
    SELECT FROM lifecycle.sends AS s
    WHERE s.user_id = k.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
    FOR UPDATE
) AS locked
