-- What the guarantee needs of the server, beyond the settings that every transaction states itself.
SELECT
    current_setting('fsync'),
    current_setting('full_page_writes'),
    current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication),
    (SELECT system_identifier FROM lifecycle.server_identity())
