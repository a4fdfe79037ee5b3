-- The tables that hold rows of sends.
SELECT relid::regclass::text FROM pg_partition_tree('lifecycle.sends') WHERE isleaf
UNION
SELECT oid::regclass::text FROM pg_class WHERE oid = 'lifecycle.sends'::regclass AND relkind = 'r'
