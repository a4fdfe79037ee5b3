-- The sends ledger: the only authority on who got which e-mail.
--
-- Airflow may run a task twice, at once, late or never; nothing here depends on it. The rules that keep a user from
-- getting a second copy are constraints of this file and triggers of 0003_rules.sql, so no code path can forget them.
-- docs/ledger.md explains the states.

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
    -- beside template_version: the package's version and a hash over its files, written at the gate
    code_version text,
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
        kind IN (
            'limit_exceeded', 'in_doubt', 'expired', 'missing_cohorts', 'provider_stopped', 'ledger_went_back',
            'witness_forgot'
        )
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
