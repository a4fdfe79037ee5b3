SELECT audience.user_id::text, audience.* FROM (
{audience}
) AS audience WHERE audience.user_id = ANY ($3::{user_id_type}[])
