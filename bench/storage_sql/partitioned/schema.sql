-- The alternative to one unpartitioned table: sends in a partition per 30 cohort days, and a key table beside
-- them, because a table partitioned by cohort_date cannot hold UNIQUE (user_id, campaign, occurrence).
-- Run on a freshly migrated ledger, whose rules are carried over word for word, so that both pay for the same.
--
-- Months and not days: days would be 400 partitions by the time detail is dropped, and a query that does not name
-- the cohort (the frequency cap, "what did user 42 get?") would lock and probe every one of them.
DO $$
DECLARE
    cap_slots text := pg_get_viewdef('lifecycle.cap_slots');
    judgement text := pg_get_viewdef('lifecycle.judgement');
    triggers text := (
        SELECT string_agg(pg_get_triggerdef(oid), ';' ORDER BY tgname) FROM pg_trigger
        WHERE tgrelid = 'lifecycle.sends'::regclass AND NOT tgisinternal
    );
    first_day date := (SELECT min(cohort_date) FROM lifecycle.cohorts);
BEGIN
    DROP VIEW lifecycle.cap_slots, lifecycle.judgement;
    ALTER TABLE lifecycle.sends RENAME TO unpartitioned;
    CREATE TABLE lifecycle.sends (LIKE lifecycle.unpartitioned INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
        PARTITION BY RANGE (cohort_date);
    DROP TABLE lifecycle.unpartitioned;

    FOR month IN 0..14 LOOP
        EXECUTE format(
            'CREATE TABLE lifecycle.sends_%s PARTITION OF lifecycle.sends FOR VALUES FROM (%L) TO (%L)'
            ' WITH (fillfactor = 50)',
            month, first_day + 30 * month, first_day + 30 * (month + 1)
        );
    END LOOP;

    EXECUTE triggers;
    EXECUTE 'CREATE VIEW lifecycle.cap_slots AS ' || cap_slots;
    EXECUTE 'CREATE VIEW lifecycle.judgement AS ' || judgement;
END $$;

-- Unique within a partition only: nothing but the key table keeps a user out of two cohorts.
ALTER TABLE lifecycle.sends ADD PRIMARY KEY (user_id, campaign, occurrence, cohort_date);
CREATE INDEX ON lifecycle.sends (campaign, cohort_date, batch);

-- cohort_date leads from a key to its partition.
CREATE TABLE lifecycle.send_keys (
    user_id text COLLATE "C" NOT NULL,
    campaign text COLLATE "C" NOT NULL,
    occurrence text COLLATE "C" NOT NULL DEFAULT 'once',
    cohort_date date NOT NULL,
    PRIMARY KEY (user_id, campaign, occurrence)
);
