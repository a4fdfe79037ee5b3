UPDATE lifecycle.halts
SET lifted_at = now(), lifted_by = coalesce(nullif(%(actor)s, ''), session_user), lift_reason = %(reason)s
WHERE lifted_at IS NULL AND campaign IS NOT DISTINCT FROM %(campaign)s
