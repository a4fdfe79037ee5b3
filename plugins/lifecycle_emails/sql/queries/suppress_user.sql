INSERT INTO lifecycle.suppressions (user_id, campaign, reason, suppressed_by)
VALUES (%(user_id)s, %(campaign)s, %(reason)s, coalesce(nullif(%(actor)s, ''), session_user))
ON CONFLICT (user_id, campaign) WHERE lifted_at IS NULL AND user_id IS NOT NULL DO NOTHING
