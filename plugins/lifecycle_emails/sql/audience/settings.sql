-- Settings of one transaction on the source: those of its server, database or role may be anything.
-- An SQL_ASCII database would give text as bytes, and psycopg reads no time stamp in another style than ISO.
SELECT set_config('transaction_read_only', 'on', true),
       set_config('statement_timeout', $2, true),
       set_config('client_encoding', 'UTF8', true),
       set_config('DateStyle', 'ISO', true),
       set_config('IntervalStyle', 'postgres', true),
       set_config('TimeZone', $1, true);
