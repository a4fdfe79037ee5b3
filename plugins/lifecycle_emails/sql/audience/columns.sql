SELECT audience.* FROM (
{audience}
) AS audience LIMIT 0
