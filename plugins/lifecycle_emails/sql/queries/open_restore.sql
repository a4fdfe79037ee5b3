SELECT mark_is_missing FROM lifecycle.restores WHERE released_at IS NULL FOR UPDATE
