INSERT INTO lifecycle.suppressions (address_hash, campaign, reason, suppressed_by)
VALUES (%(address_hash)s, %(campaign)s, %(reason)s, coalesce(nullif(%(actor)s, ''), session_user))
ON CONFLICT (address_hash, campaign) WHERE lifted_at IS NULL AND address_hash IS NOT NULL DO NOTHING
