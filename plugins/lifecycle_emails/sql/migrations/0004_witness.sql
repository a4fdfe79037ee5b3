-- A ledger that went back in time: restored from a backup, copied, or failed over to a standby that lacks commits.
--
-- It would send again what it has forgotten. So it knows its own server and table by their numbers, and a witness
-- outside it knows the ledger's newest mark. What does not fit stops all sending at the gate, until a person says
-- since when (`lifecycle restored`). docs/ledger.md explains it.

-- The server and the table that this ledger was last known to live in. One row.
CREATE TABLE lifecycle.known_server (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- NULL: this server does not tell its owner; then only the witness protects
    system_identifier bigint,
    timeline integer,
    sends_oid oid NOT NULL,
    known_since timestamptz NOT NULL DEFAULT now()
);

-- What this server says now. A dump brings other oids, another cluster another system identifier, and a promoted
-- standby or a recovery to a point in time another timeline.
CREATE FUNCTION lifecycle.server_identity(OUT system_identifier bigint, OUT timeline integer, OUT sends_oid oid)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    sends_oid := 'lifecycle.sends'::regclass::oid;
    BEGIN
        system_identifier := (SELECT c.system_identifier FROM pg_control_system() AS c);
        -- not of pg_control_checkpoint, which lags behind a promotion
        timeline := ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported OR object_not_in_prerequisite_state THEN
        NULL;  -- a managed server that does not tell
    END;
END $$;

INSERT INTO lifecycle.known_server (system_identifier, timeline, sends_oid)
SELECT * FROM lifecycle.server_identity();

-- Each time that the ledger may have gone back: found or reported, until a person releases it.
CREATE TABLE lifecycle.restores (
    restore_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    found_at timestamptz NOT NULL DEFAULT now(),
    finding text NOT NULL,
    -- the witness saw a mark that this ledger has not: then something was lost for certain
    mark_is_missing boolean NOT NULL DEFAULT false,
    -- from when on this ledger's memory is missing; NULL in a release that says nothing is
    since timestamptz,
    released_at timestamptz,
    released_by text,
    release_reason text,
    CONSTRAINT released_restore_says_who_and_why CHECK (num_nonnulls(released_at, released_by, release_reason) IN (0, 3)),
    CONSTRAINT restore_is_released_after_since CHECK (since < released_at),
    CONSTRAINT lost_marks_are_lost_time CHECK (NOT mark_is_missing OR released_at IS NULL OR since IS NOT NULL)
);
CREATE UNIQUE INDEX restores_in_force ON lifecycle.restores ((true)) WHERE released_at IS NULL;

CREATE TRIGGER released_restore_is_final BEFORE UPDATE ON lifecycle.restores FOR EACH ROW
WHEN (OLD.released_at IS NOT NULL)
EXECUTE FUNCTION lifecycle.refuse('cohorts were judged by it');

CREATE TRIGGER restore_is_never_deleted BEFORE DELETE OR TRUNCATE ON lifecycle.restores FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('cohorts are still judged by it');

-- Marks that witnesses have seen. A witness whose mark is not here has seen more than this ledger remembers.
CREATE TABLE lifecycle.witness_marks (
    mark uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    position bigint GENERATED ALWAYS AS IDENTITY,
    marked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX witness_marks_by_time ON lifecycle.witness_marks (marked_at);

-- How this server differs from the known one; NULL: in nothing that it tells. A row that is gone is a difference too:
-- without it nothing would ever differ.
CREATE FUNCTION lifecycle.difference_of_server() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT nullif(concat_ws(', ',
        CASE WHEN known.only_row IS NULL
            THEN 'nothing is known of its server any more (lifecycle.known_server is empty)' END,
        CASE WHEN now_.system_identifier <> known.system_identifier
            THEN format('another cluster (system identifier %s, known %s)', now_.system_identifier, known.system_identifier) END,
        CASE WHEN now_.timeline <> known.timeline
            THEN format('another timeline (%s, known %s): a promoted standby or a recovery', now_.timeline, known.timeline) END,
        CASE WHEN now_.sends_oid <> known.sends_oid
            THEN format('another table of sends (oid %s, known %s): a restored dump', now_.sends_oid, known.sends_oid) END
    ), '')
    FROM lifecycle.server_identity() AS now_
    LEFT JOIN lifecycle.known_server AS known ON true
$$;

-- Why nothing may be sent from this ledger at all; NULL: it may. The gate asks in every group.
CREATE FUNCTION lifecycle.distrust() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    finding text;
BEGIN
    IF current_setting('fsync') <> 'on' THEN
        RETURN 'fsync is off on the ledger''s server, so a crash could make it forget what was sent; switch it on';
    END IF;
    SELECT r.finding INTO finding FROM lifecycle.restores AS r WHERE r.released_at IS NULL;
    finding := coalesce(finding, lifecycle.difference_of_server());
    RETURN CASE WHEN finding IS NOT NULL THEN
        format('the ledger may have gone back in time: %s. Say since when: lifecycle restored --since TIME', finding)
    END;
END $$;

-- The cohorts that could be planned and sent in a time that this ledger has forgotten, by the restore that covers them.
-- A cohort can be planned from the day of its tick on; three hours allow for zones and clock changes.
CREATE VIEW lifecycle.lost_time AS
SELECT c.campaign, c.cohort_date, r.restore_id, r.since, r.released_at
FROM lifecycle.cohorts AS c
JOIN lifecycle.restores AS r
    ON c.not_after > r.since
    AND c.window_start + make_interval(days => c.offset_days) - interval '3 hours' <= r.released_at
WHERE r.released_at IS NOT NULL;
