-- One percent of the users, and 20,000 addresses of others.
INSERT INTO lifecycle.suppressions (user_id, address_hash, reason, suppressed_by)
SELECT user_id, NULL, 'unsubscribed', 'bench' FROM unnest(%(user_ids)s::text[]) AS user_id
UNION ALL
SELECT NULL, decode(md5('address ' || n), 'hex'), 'unsubscribed', 'bench' FROM generate_series(1, 20000) AS n
ON CONFLICT DO NOTHING
