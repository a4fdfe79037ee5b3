-- The sends ledger: the only authority on who got which e-mail.
--
-- Airflow may run a task twice, at once, late or never; nothing here depends on it. The rules that keep a user from
-- getting a second copy are constraints and triggers of this file, so no code path can forget them.
-- docs/ledger.md explains the states; tests hold its table and diagram against this file.

CREATE TYPE lifecycle.send_state AS ENUM ('planned', 'held', 'ready', 'sending', 'sent', 'rejected', 'in_doubt');

CREATE TYPE lifecycle.held_reason AS ENUM (
    'suppressed', 'capped', 'stale', 'invalid_address', 'left_audience', 'render_failed', 'daily_limit'
);

-- What belongs to this ledger alone. One row.
CREATE TABLE lifecycle.installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Message-IDs are uuid5 of this namespace and the send's key: the same over all attempts, unguessable outside.
    message_id_namespace uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Addresses are never stored; where two must be compared, their keyed hashes are.
    address_hash_key bytea NOT NULL DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
);
INSERT INTO lifecycle.installation DEFAULT VALUES;

-- A cohort: the users created on one day, with everything about that day frozen when it is first planned.
CREATE TABLE lifecycle.cohorts (
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    timezone text NOT NULL,
    offset_days integer NOT NULL,
    not_after timestamptz NOT NULL,
    planned_at timestamptz NOT NULL DEFAULT now(),
    -- what the last extract found: users in the audience, and how many of them it could give no row (always 0)
    audience_read_at timestamptz,
    audience_size integer,
    audience_without_row integer,
    -- set by maintenance when nothing is left to do; sweeps go by the open cohorts, so no index mentions `state`
    closed_at timestamptz,
    detail_dropped_at timestamptz,
    PRIMARY KEY (campaign, cohort_date),
    CONSTRAINT cohort_window_is_half_open CHECK (window_start <= window_end),
    CONSTRAINT cohort_offset_is_at_least_one_day CHECK (offset_days >= 1),
    CONSTRAINT cohort_deadline_follows_window CHECK (not_after > window_end)
);

CREATE INDEX cohorts_open ON lifecycle.cohorts (campaign, cohort_date) WHERE closed_at IS NULL;

-- A send: one user, one campaign, once. The primary key is the promise "at most one"; it begins with the user
-- because the frequency cap counts a user's sends over all campaigns. `cohort_date` only partitions the work.
-- fillfactor: four updates follow an insert, and they stay on the page (HOT) because no index mentions `state`.
CREATE TABLE lifecycle.sends (
    user_id text COLLATE "C" NOT NULL,
    campaign text COLLATE "C" NOT NULL,
    occurrence text COLLATE "C" NOT NULL DEFAULT 'once',
    cohort_date date NOT NULL,
    batch integer NOT NULL,
    state lifecycle.send_state NOT NULL DEFAULT 'planned',
    held_reason lifecycle.held_reason,
    attempts smallint NOT NULL DEFAULT 0,
    planned_at timestamptz NOT NULL DEFAULT now(),
    ready_at timestamptz,
    not_before timestamptz,
    gate_at timestamptz,
    answer_due timestamptz,
    sent_at timestamptz,
    attempt uuid,
    address_hash bytea,
    template_version text,
    queue_id text,
    detail text,
    PRIMARY KEY (user_id, campaign, occurrence),
    CONSTRAINT held_has_a_reason CHECK ((state = 'held') = (held_reason IS NOT NULL)),
    CONSTRAINT sent_has_sent_at CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
    CONSTRAINT gated_has_an_attempt CHECK (
        state NOT IN ('sending', 'in_doubt') OR num_nonnulls(attempt, gate_at, answer_due) = 3
    ),
    CONSTRAINT ready_has_ready_at CHECK (state NOT IN ('ready', 'sending', 'in_doubt') OR ready_at IS NOT NULL),
    CONSTRAINT address_hash_is_short CHECK (octet_length(address_hash) = 16)
) WITH (fillfactor = 50);

CREATE INDEX sends_by_cohort ON lifecycle.sends (campaign, cohort_date, batch);

-- History: a row for every hold, rejection, doubt, step back and person's act. The straight path
-- (planned, ready, sending, sent) is told by the time stamps of the send's own row.
CREATE TABLE lifecycle.send_events (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    campaign text COLLATE "C" NOT NULL,
    occurrence text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    happened_at timestamptz NOT NULL DEFAULT now(),
    from_state lifecycle.send_state NOT NULL,
    to_state lifecycle.send_state NOT NULL,
    held_reason lifecycle.held_reason,
    attempt uuid,
    detail text,
    actor text NOT NULL DEFAULT coalesce(nullif(current_setting('lifecycle.actor', true), ''), session_user),
    -- the alert that told the team of this doubt, or of this user whom it was too late for
    alert_id uuid
);
CREATE INDEX send_events_by_user ON lifecycle.send_events (user_id, campaign);
CREATE INDEX send_events_by_time ON lifecycle.send_events USING brin (happened_at);
CREATE INDEX send_events_in_doubt ON lifecycle.send_events (campaign, user_id) WHERE to_state = 'in_doubt';
CREATE INDEX send_events_to_tell ON lifecycle.send_events (campaign) WHERE to_state = 'in_doubt' AND alert_id IS NULL;
CREATE INDEX send_events_expired ON lifecycle.send_events (campaign)
    WHERE from_state = 'ready' AND held_reason = 'stale' AND alert_id IS NULL;

-- A batch: what one mapped task sends. Its lease only avoids wasted work; the send's own state is what fences.
CREATE TABLE lifecycle.batches (
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    batch integer NOT NULL,
    lease_holder uuid,
    lease_until timestamptz,
    PRIMARY KEY (campaign, cohort_date, batch),
    FOREIGN KEY (campaign, cohort_date) REFERENCES lifecycle.cohorts
);

-- Whom never to mail: one user or one (hashed) address, in one campaign or in all.
CREATE TABLE lifecycle.suppressions (
    suppression_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C",
    address_hash bytea,
    campaign text COLLATE "C",
    since timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    suppressed_by text NOT NULL,
    lifted_at timestamptz,
    lifted_by text,
    lift_reason text,
    CONSTRAINT suppression_names_a_user_or_an_address CHECK (num_nonnulls(user_id, address_hash) = 1),
    CONSTRAINT suppression_has_a_reason CHECK (btrim(reason) <> ''),
    CONSTRAINT lifted_suppression_says_who_and_why CHECK (num_nonnulls(lifted_at, lifted_by, lift_reason) IN (0, 3))
);
CREATE UNIQUE INDEX suppressions_of_users ON lifecycle.suppressions (user_id, campaign) NULLS NOT DISTINCT
    WHERE lifted_at IS NULL AND user_id IS NOT NULL;
CREATE UNIQUE INDEX suppressions_of_addresses ON lifecycle.suppressions (address_hash, campaign) NULLS NOT DISTINCT
    WHERE lifted_at IS NULL AND address_hash IS NOT NULL;

-- A halt stops sending at the gate, in one campaign or in all, inside running tasks too.
CREATE TABLE lifecycle.halts (
    halt_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign text COLLATE "C",
    since timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    halted_by text NOT NULL,
    lifted_at timestamptz,
    lifted_by text,
    lift_reason text,
    CONSTRAINT halt_has_a_reason CHECK (btrim(reason) <> ''),
    CONSTRAINT lifted_halt_says_who_and_why CHECK (num_nonnulls(lifted_at, lifted_by, lift_reason) IN (0, 3))
);
CREATE UNIQUE INDEX halts_in_force ON lifecycle.halts (campaign) NULLS NOT DISTINCT WHERE lifted_at IS NULL;

-- A stopped provider: it refused so many mails that the fault is not the recipients'. The gate obeys this too.
CREATE TABLE lifecycle.provider_stops (
    stop_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    smtp_conn_id text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    probed_at timestamptz,
    resumed_at timestamptz
);
CREATE UNIQUE INDEX provider_stops_in_force ON lifecycle.provider_stops (smtp_conn_id) WHERE resumed_at IS NULL;

-- What the team must be told: a durable row first, delivered at least once to each callback.
CREATE TABLE lifecycle.alerts (
    alert_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    campaign text COLLATE "C",
    cohort_date date,
    run text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    facts jsonb NOT NULL,
    callbacks text[] NOT NULL,
    escalated_at timestamptz,
    CONSTRAINT alert_kind_is_known CHECK (
        kind IN ('limit_exceeded', 'in_doubt', 'expired', 'missing_cohorts', 'provider_stopped', 'ledger_went_back')
    )
);
CREATE INDEX alerts_by_age ON lifecycle.alerts (created_at);

CREATE TABLE lifecycle.alert_deliveries (
    alert_id uuid NOT NULL REFERENCES lifecycle.alerts ON DELETE CASCADE,
    callback text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    attempted_at timestamptz,
    delivered_at timestamptz,
    error text,
    PRIMARY KEY (alert_id, callback)
);

-- The cap refused a user under a rule. Repeats within the rule's window belong to the first refusal's alert.
CREATE TABLE lifecycle.cap_refusals (
    refusal_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    rule text NOT NULL,
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    slots_taken integer NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now(),
    alert_id uuid REFERENCES lifecycle.alerts ON DELETE SET NULL
);
CREATE INDEX cap_refusals_by_user ON lifecycle.cap_refusals (user_id, rule, refused_at);

-- The user's slots under the frequency cap. A slot counts in a window while slot_at > now() - window. Daily limits count
-- the same slots, found through the few cohorts that could be mailed on a day.
CREATE VIEW lifecycle.cap_slots AS
SELECT
    user_id,
    campaign,
    state,
    CASE state
        WHEN 'sent' THEN sent_at
        WHEN 'in_doubt' THEN answer_due
        ELSE timestamptz 'infinity'
    END AS slot_at,
    cohort_date
FROM lifecycle.sends
WHERE state IN ('ready', 'sending', 'in_doubt', 'sent');

CREATE VIEW lifecycle.suppressions_in_force AS
SELECT user_id, address_hash, campaign
FROM lifecycle.suppressions
WHERE lifted_at IS NULL AND since <= now();

-- The filter's predicate, in one place: filter_ledger and limit_rate both go by it. NULL means "may be sent".
-- A view of one table, so that an UPDATE goes through it, and everything about a row is looked up by key: the
-- planner has no join to get wrong. Its statistics know nothing of a cohort planned a minute ago, it expects one
-- row, and joins that suit one row take hours for a hundred thousand.
CREATE VIEW lifecycle.judgement AS
SELECT
    s.user_id,
    s.campaign,
    s.occurrence,
    s.cohort_date,
    s.batch,
    s.state,
    s.held_reason,
    s.ready_at,
    s.not_before,
    s.detail,
    s.ctid AS row_at,
    CASE
        WHEN now() >= (
            SELECT c.not_after FROM lifecycle.cohorts AS c
            WHERE c.campaign = s.campaign AND c.cohort_date = s.cohort_date
        ) THEN 'stale'
        WHEN EXISTS (
            SELECT FROM lifecycle.suppressions_in_force AS x
            WHERE x.user_id = s.user_id AND (x.campaign IS NULL OR x.campaign = s.campaign)
        ) OR EXISTS (
            SELECT FROM lifecycle.suppressions_in_force AS x
            WHERE x.address_hash = s.address_hash AND (x.campaign IS NULL OR x.campaign = s.campaign)
        ) THEN 'suppressed'
    END::lifecycle.held_reason AS hold
FROM lifecycle.sends AS s;

-- Rows of cohorts that the judgement might hold: all others are sendable, and need not be judged one by one, which took
-- a quarter of the time of a plan. Found by hash joins, whatever the statistics say: one pass over the cohort for each
-- kind of suppression, and one over the suppressions.
CREATE FUNCTION lifecycle.rows_to_judge(of_campaign text, of_cohorts date[]) RETURNS SETOF tid LANGUAGE sql STABLE
SET enable_nestloop = off SET enable_mergejoin = off AS $$
    SELECT s.ctid
    FROM lifecycle.sends AS s
    JOIN lifecycle.suppressions_in_force AS x ON x.user_id = s.user_id
    WHERE s.campaign = of_campaign AND s.cohort_date = ANY (of_cohorts) AND s.state IN ('planned', 'ready')
    UNION ALL
    SELECT s.ctid
    FROM lifecycle.sends AS s
    JOIN lifecycle.suppressions_in_force AS x ON x.address_hash = s.address_hash
    WHERE s.campaign = of_campaign AND s.cohort_date = ANY (of_cohorts) AND s.state IN ('planned', 'ready')
    UNION ALL
    SELECT s.ctid
    FROM lifecycle.sends AS s
    WHERE s.campaign = of_campaign AND s.state IN ('planned', 'ready')
      AND s.cohort_date = ANY (ARRAY(
          SELECT c.cohort_date FROM lifecycle.cohorts AS c
          WHERE c.campaign = of_campaign AND c.cohort_date = ANY (of_cohorts) AND c.not_after <= now()
      ))
$$;

CREATE FUNCTION lifecycle.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = format('the ledger forbids this %s on lifecycle.%s: %s', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]);
END $$;

-- What the transition table does not name is refused. A later migration replaces this function to know an exception.
CREATE FUNCTION lifecycle.check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = format('the ledger forbids this update on lifecycle.sends: %s -> %s is no transition; see docs/ledger.md', OLD.state, NEW.state);
END $$;

-- The transition table. Named pairs pass at no cost: the WHEN clause is evaluated without calling the function.
-- AFTER, as all triggers on updates of sends: they refuse the statement just as well, and a single BEFORE trigger would
-- lock every row first, with a record in the log of its own.
CREATE TRIGGER send_transition_is_legal AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state
    WHEN 'planned' THEN NEW.state IN ('held', 'ready')
    WHEN 'held' THEN NEW.state IN ('planned', 'ready')
    WHEN 'ready' THEN NEW.state IN ('planned', 'held', 'sending', 'rejected')
    WHEN 'sending' THEN NEW.state IN ('ready', 'sent', 'rejected', 'in_doubt')
    WHEN 'in_doubt' THEN NEW.state IN ('planned', 'sent', 'rejected')
    WHEN 'rejected' THEN NEW.state = 'planned'
    WHEN 'sent' THEN false
END)
EXECUTE FUNCTION lifecycle.check_transition();

CREATE TRIGGER send_key_is_fixed AFTER UPDATE OF user_id, campaign, occurrence ON lifecycle.sends FOR EACH ROW
WHEN ((OLD.user_id, OLD.campaign, OLD.occurrence) IS DISTINCT FROM (NEW.user_id, NEW.campaign, NEW.occurrence))
EXECUTE FUNCTION lifecycle.refuse('the key of a send never changes');

-- Passing the gate takes a token that nobody has used on this row, and a token in flight is never exchanged.
CREATE TRIGGER send_attempt_is_fresh AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (
    (OLD.state = 'ready' AND NEW.state = 'sending' AND NEW.attempt IS NOT DISTINCT FROM OLD.attempt)
    OR (OLD.state IN ('sending', 'in_doubt', 'sent') AND NEW.attempt IS DISTINCT FROM OLD.attempt)
)
EXECUTE FUNCTION lifecycle.refuse('an attempt has a token of its own, and keeps it');

-- Nobody sends again what may still be answered, or was accepted: "send again" waits for answer_due and for the end
-- of the batch's lease. An attempt that learns late that it was refused knows better; record_outcomes says so.
CREATE FUNCTION lifecycle.check_send_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.queue_id IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            CONSTRAINT = TG_NAME,
            MESSAGE = format('user %s: the server accepted this mail (queue id %s); it is never sent again', OLD.user_id, OLD.queue_id);
    END IF;
    IF OLD.answer_due >= now() OR EXISTS (
        SELECT FROM lifecycle.batches AS b
        WHERE b.campaign = OLD.campaign AND b.cohort_date = OLD.cohort_date AND b.batch = OLD.batch
          AND b.lease_until >= now()
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            CONSTRAINT = TG_NAME,
            MESSAGE = format('user %s: an answer may still come; wait for answer_due and the end of the lease of its batch', OLD.user_id);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER send_again_waits_for_the_answer AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (
    OLD.state = 'in_doubt' AND NEW.state = 'planned'
    AND current_setting('lifecycle.answer_was_read', true) IS DISTINCT FROM 'yes'
)
EXECUTE FUNCTION lifecycle.check_send_again();

CREATE TRIGGER sent_is_final AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (OLD.state = 'sent' AND (NEW.sent_at, NEW.gate_at) IS DISTINCT FROM (OLD.sent_at, OLD.gate_at))
EXECUTE FUNCTION lifecycle.refuse('what was sent, and when, is never rewritten');

CREATE TRIGGER send_is_never_deleted BEFORE DELETE OR TRUNCATE ON lifecycle.sends FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('a key that is gone could be mailed again; retention drops detail, never a key');

CREATE TRIGGER send_starts_planned AFTER INSERT ON lifecycle.sends FOR EACH ROW
WHEN (NEW.state <> 'planned' OR NEW.attempt IS NOT NULL)
EXECUTE FUNCTION lifecycle.refuse('a send begins as planned');

CREATE TRIGGER cohort_is_never_deleted BEFORE DELETE OR TRUNCATE ON lifecycle.cohorts FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('cohorts are kept, so that gaps between them can be found');

-- A later migration replaces this function to let a person's written approval move a deadline.
CREATE FUNCTION lifecycle.check_frozen_cohort() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = 'the ledger forbids this update on lifecycle.cohorts: window, zone, offset and deadline of a cohort are'
            ' frozen when it is planned';
END $$;

CREATE TRIGGER cohort_is_frozen BEFORE UPDATE ON lifecycle.cohorts FOR EACH ROW
WHEN (
    (OLD.campaign, OLD.cohort_date, OLD.window_start, OLD.window_end, OLD.timezone, OLD.offset_days, OLD.not_after)
    IS DISTINCT FROM
    (NEW.campaign, NEW.cohort_date, NEW.window_start, NEW.window_end, NEW.timezone, NEW.offset_days, NEW.not_after)
)
EXECUTE FUNCTION lifecycle.check_frozen_cohort();

-- Every send belongs to a cohort. Checked per statement: a foreign key would cost five seconds per million rows.
CREATE FUNCTION lifecycle.check_cohorts_of_sends() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    orphan record;
BEGIN
    SELECT a.campaign, a.cohort_date INTO orphan
    FROM (SELECT DISTINCT campaign, cohort_date FROM arrived) AS a
    WHERE NOT EXISTS (
        SELECT FROM lifecycle.cohorts AS c WHERE c.campaign = a.campaign AND c.cohort_date = a.cohort_date
    )
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'foreign_key_violation',
            CONSTRAINT = TG_NAME,
            MESSAGE = format('no cohort %s of campaign %s; plan the cohort before its sends', orphan.cohort_date, orphan.campaign);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER sends_arrive_in_a_cohort AFTER INSERT ON lifecycle.sends
REFERENCING NEW TABLE AS arrived FOR EACH STATEMENT EXECUTE FUNCTION lifecycle.check_cohorts_of_sends();

CREATE FUNCTION lifecycle.check_cohort_of_moved_send() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM lifecycle.cohorts AS c WHERE c.campaign = NEW.campaign AND c.cohort_date = NEW.cohort_date;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'foreign_key_violation',
            CONSTRAINT = TG_NAME,
            MESSAGE = format('no cohort %s of campaign %s', NEW.cohort_date, NEW.campaign);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER send_moves_to_a_cohort AFTER UPDATE OF cohort_date ON lifecycle.sends FOR EACH ROW
WHEN (OLD.cohort_date <> NEW.cohort_date) EXECUTE FUNCTION lifecycle.check_cohort_of_moved_send();

CREATE TRIGGER send_keeps_its_cohort AFTER UPDATE OF cohort_date ON lifecycle.sends FOR EACH ROW
WHEN (OLD.cohort_date <> NEW.cohort_date AND OLD.state NOT IN ('planned', 'held', 'ready'))
EXECUTE FUNCTION lifecycle.refuse('a mail on its way, in doubt or done stays in its cohort');

CREATE FUNCTION lifecycle.write_send_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO lifecycle.send_events
        (user_id, campaign, occurrence, cohort_date, from_state, to_state, held_reason, attempt, detail)
    VALUES
        (NEW.user_id, NEW.campaign, NEW.occurrence, NEW.cohort_date, OLD.state, NEW.state, NEW.held_reason,
         coalesce(NEW.attempt, OLD.attempt), NEW.detail);
    RETURN NULL;
END $$;

CREATE TRIGGER send_event_is_written AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (
    (OLD.state, OLD.held_reason) IS DISTINCT FROM (NEW.state, NEW.held_reason)
    AND (
        NEW.state IN ('held', 'rejected', 'in_doubt')
        OR OLD.state IN ('rejected', 'in_doubt')
        OR (OLD.state = 'sending' AND NEW.state = 'ready')
        OR (OLD.state = 'ready' AND NEW.state = 'planned')
    )
)
EXECUTE FUNCTION lifecycle.write_send_event();
