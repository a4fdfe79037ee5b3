SELECT freshness.* FROM (
{freshness}
) AS freshness LIMIT $1
