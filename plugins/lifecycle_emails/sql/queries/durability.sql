-- What the guarantee needs of the server, beyond the settings that every transaction states itself.
SELECT
    current_setting('fsync'),
    current_setting('full_page_writes'),
    current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication),
    (SELECT num_nulls(system_identifier, timeline) = 0 FROM lifecycle.server_identity()),
    EXISTS (SELECT FROM lifecycle.known_server WHERE num_nulls(system_identifier, timeline) = 0)
