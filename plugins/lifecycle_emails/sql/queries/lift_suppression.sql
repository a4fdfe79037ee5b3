UPDATE lifecycle.suppressions
SET lifted_at = now(), lifted_by = coalesce(nullif(%(actor)s, ''), session_user), lift_reason = %(reason)s
WHERE lifted_at IS NULL
  AND user_id IS NOT DISTINCT FROM %(user_id)s
  AND address_hash IS NOT DISTINCT FROM %(address_hash)s
  AND campaign IS NOT DISTINCT FROM %(campaign)s
