INSERT INTO lifecycle.restores (finding, mark_is_missing)
VALUES (%(finding)s, %(mark_is_missing)s)
ON CONFLICT ((true)) WHERE released_at IS NULL DO NOTHING
