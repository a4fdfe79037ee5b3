INSERT INTO lifecycle.known_server (system_identifier, timeline, sends_oid)
SELECT system_identifier, timeline, sends_oid FROM lifecycle.server_identity()
ON CONFLICT (only_row) DO UPDATE
SET system_identifier = excluded.system_identifier,
    timeline = excluded.timeline,
    sends_oid = excluded.sends_oid,
    known_since = now()
