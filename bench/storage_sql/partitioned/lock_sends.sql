-- As the ledger's own; the key table leads to the one partition that holds a user's row.
SELECT k.user_id
FROM unnest(%(user_ids)s::text[]) AS k (user_id)
CROSS JOIN LATERAL (
    SELECT cohort_date FROM lifecycle.send_keys AS key
    WHERE key.user_id = k.user_id AND key.campaign = %(campaign)s AND key.occurrence = 'once'
    LIMIT 1
) AS planned
CROSS JOIN LATERAL (
    SELECT FROM lifecycle.sends AS s
    WHERE s.user_id = k.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
      AND s.cohort_date = planned.cohort_date
    FOR UPDATE
) AS locked
