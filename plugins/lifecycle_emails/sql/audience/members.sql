SELECT audience.user_id::text, audience.email::text FROM (
{audience}
) AS audience ORDER BY audience.user_id::text COLLATE "C"
