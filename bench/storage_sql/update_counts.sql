-- Updates of sends so far, and those of them that stayed on their page and touched no index (HOT).
SELECT coalesce(sum(pg_stat_get_tuples_updated(relid)), 0), coalesce(sum(pg_stat_get_tuples_hot_updated(relid)), 0)
FROM (
    SELECT relid FROM pg_partition_tree('lifecycle.sends') WHERE isleaf
    UNION
    SELECT 'lifecycle.sends'::regclass
) AS tables
