-- Bytes of the rows, of all indexes on them, and of the key table with its index where there is one.
SELECT
    sum(pg_table_size(relid))::bigint,
    sum(pg_indexes_size(relid))::bigint,
    coalesce(pg_total_relation_size(to_regclass('lifecycle.send_keys')), 0)
FROM (
    SELECT relid FROM pg_partition_tree('lifecycle.sends') WHERE isleaf
    UNION
    SELECT 'lifecycle.sends'::regclass
) AS tables
