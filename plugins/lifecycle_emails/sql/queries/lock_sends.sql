-- After a lost answer to COMMIT: by key, so that it waits for a COMMIT that is still under way.
SELECT user_id FROM lifecycle.sends
WHERE campaign = %(campaign)s AND occurrence = 'once' AND user_id = ANY (%(user_ids)s)
ORDER BY user_id
FOR UPDATE
