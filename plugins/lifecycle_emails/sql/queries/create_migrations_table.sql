DO $$
BEGIN
    IF to_regclass('lifecycle.migrations') IS NULL THEN
        CREATE SCHEMA IF NOT EXISTS lifecycle;
        CREATE TABLE lifecycle.migrations (
            number integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        );
    END IF;
END $$
