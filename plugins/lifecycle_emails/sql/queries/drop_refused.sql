DROP TABLE pg_temp.refused
