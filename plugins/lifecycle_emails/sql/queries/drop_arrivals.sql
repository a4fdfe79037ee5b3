DROP TABLE pg_temp.arrivals
