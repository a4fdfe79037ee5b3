-- What the server did not tell when it became known, and tells now. A server that differs is not learnt: a person must look.
UPDATE lifecycle.known_server AS k
SET system_identifier = coalesce(k.system_identifier, i.system_identifier),
    timeline = coalesce(k.timeline, i.timeline)
FROM lifecycle.server_identity() AS i
WHERE (
    k.system_identifier IS NULL AND i.system_identifier IS NOT NULL
    OR k.timeline IS NULL AND i.timeline IS NOT NULL
)
  AND lifecycle.difference_of_server() IS NULL
  AND NOT EXISTS (SELECT FROM lifecycle.restores WHERE released_at IS NULL)
