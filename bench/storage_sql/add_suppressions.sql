-- One user in a hundred unsubscribed from everything, and a fifth as many addresses are suppressed.
INSERT INTO lifecycle.suppressions (user_id, address_hash, reason, suppressed_by)
SELECT md5('user ' || n)::uuid::text, NULL, 'unsubscribed', 'bench'
FROM generate_series(7::bigint, %(users)s::bigint - 1, 100) AS n
UNION ALL
SELECT NULL, decode(md5('address ' || n), 'hex'), 'complained', 'bench'
FROM generate_series(57::bigint, %(users)s::bigint - 1, 500) AS n
