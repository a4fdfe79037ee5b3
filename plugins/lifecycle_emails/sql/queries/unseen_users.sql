-- Of these users, those who stand in no cohort.
SELECT named.user_id
FROM unnest(%(user_ids)s::text[]) AS named (user_id)
WHERE NOT EXISTS (SELECT FROM lifecycle.sends AS s WHERE s.user_id = named.user_id)
ORDER BY named.user_id
