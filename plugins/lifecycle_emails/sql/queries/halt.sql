INSERT INTO lifecycle.halts (campaign, reason, halted_by)
VALUES (%(campaign)s, %(reason)s, coalesce(nullif(%(actor)s, ''), session_user))
ON CONFLICT (campaign) WHERE lifted_at IS NULL DO NOTHING
