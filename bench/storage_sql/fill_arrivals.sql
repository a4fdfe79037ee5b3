-- Users number start, start + step, ...: new ones, or some of the history's.
INSERT INTO arrivals (user_id, address_hash)
SELECT md5('user ' || n)::uuid::text, decode(md5('address ' || n), 'hex')
FROM generate_series(%(start)s::bigint, %(start)s::bigint + (%(size)s::bigint - 1) * %(step)s, %(step)s) AS n
ORDER BY 1
