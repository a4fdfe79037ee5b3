UPDATE lifecycle.known_server AS k
SET system_identifier = i.system_identifier, timeline = i.timeline, sends_oid = i.sends_oid, known_since = now()
FROM lifecycle.server_identity() AS i
