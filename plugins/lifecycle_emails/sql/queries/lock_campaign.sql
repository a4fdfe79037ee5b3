-- Set steps of one campaign take turns, whichever run, DAG or Airflow they belong to.
SELECT pg_advisory_xact_lock(hashtextextended('lifecycle campaign ' || %(campaign)s, 0))
