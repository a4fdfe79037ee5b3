UPDATE lifecycle.restores
SET since = %(since)s,
    released_at = now(),
    released_by = coalesce(nullif(%(actor)s, ''), session_user),
    release_reason = %(reason)s
WHERE released_at IS NULL
