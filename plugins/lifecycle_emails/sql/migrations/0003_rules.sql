-- What nobody may do to the ledger, whatever his code believes: the transition table, and what is fixed, final or never
-- deleted. docs/ledger.md explains the rules; tests hold its table and diagram against this file.

CREATE FUNCTION lifecycle.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = format('the ledger forbids this %s on lifecycle.%s: %s', lower(TG_OP), TG_TABLE_NAME, TG_ARGV[0]);
END $$;

-- What the transition table does not name is refused, but for two steps. Who was perhaps sent in a time that the ledger has
-- forgotten may become in_doubt, in the transaction of the release, or on first coming into a cohort of the lost time. That
-- is whoever was never gated, and whoever was gated before that time (refused then, and gated again in it). And who was to
-- be sent again is sent when the attempt given up comes back with the server's acceptance after all.
CREATE FUNCTION lifecycle.check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('planned', 'held', 'ready') AND NEW.state = 'in_doubt'
       AND NEW.attempt IS DISTINCT FROM OLD.attempt
       AND EXISTS (
           SELECT FROM lifecycle.lost_time AS t
           WHERE t.campaign = NEW.campaign AND t.cohort_date = NEW.cohort_date
             AND t.since = NEW.gate_at AND t.released_at = NEW.answer_due
             AND (t.released_at = now() OR OLD.attempt IS NULL OR OLD.gate_at < t.since)
       )
    THEN
        RETURN NEW;
    END IF;
    IF OLD.state IN ('planned', 'held', 'ready') AND NEW.state = 'sent'
       AND NEW.attempt = OLD.attempt
       AND current_setting('lifecycle.answer_was_read', true) = 'yes'
    THEN
        RETURN NEW;
    END IF;
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

-- A dot that may have been written is taken back only by the word of its own attempt, which record_outcomes passes on: no
-- other statement makes a row in flight ready again, or in doubt before its time, or one rejected that was perhaps
-- accepted, from where it could be released. A mail that bounced has a queue id, and is not.
CREATE TRIGGER send_in_flight_waits_for_its_answer AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (
    (
        (OLD.state = 'sending' AND NEW.state = 'ready')
        OR (OLD.state = 'sending' AND NEW.state = 'in_doubt' AND OLD.answer_due >= now())
        OR (OLD.state IN ('sending', 'in_doubt') AND NEW.state = 'rejected' AND NEW.queue_id IS NULL)
    )
    AND current_setting('lifecycle.answer_was_read', true) IS DISTINCT FROM 'yes'
)
EXECUTE FUNCTION lifecycle.refuse('its mail may have been accepted; only the attempt in flight knows');

-- Accepted, and bounced later: the mail went out once, and no person may send it again.
CREATE TRIGGER bounced_mail_is_not_released AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (OLD.state = 'rejected' AND NEW.state = 'planned' AND OLD.queue_id IS NOT NULL)
EXECUTE FUNCTION lifecycle.refuse('the server accepted this mail before it bounced; it is never sent again');

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

-- A deadline may move later, by the days of an extension of this transaction, and nothing else of a cohort ever changes.
CREATE FUNCTION lifecycle.check_frozen_cohort() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.campaign, OLD.cohort_date, OLD.window_start, OLD.window_end, OLD.timezone, OLD.offset_days)
       = (NEW.campaign, NEW.cohort_date, NEW.window_start, NEW.window_end, NEW.timezone, NEW.offset_days)
       AND NEW.not_after > OLD.not_after
       AND EXISTS (
           SELECT FROM lifecycle.extensions AS e
           WHERE e.extended_at = now()
             AND e.campaign = NEW.campaign
             AND NEW.cohort_date BETWEEN e.cohort_from AND e.cohort_to
             AND NEW.not_after <= greatest(OLD.not_after, now()) + make_interval(days => e.days)
       )
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = 'the ledger forbids this update on lifecycle.cohorts: window, zone, offset and deadline of a cohort are'
            ' frozen when it is planned; only lifecycle extend moves a deadline';
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

-- Sweeps go by the open cohorts, so a user who is planned again must not stay in a closed one: nobody would look at the row.
-- A doubt does not keep its cohort open: most are never settled, and every round of maintenance reads the open cohorts.

-- Locked first: a round that is closing this cohort holds the lock, and the update sees what it has done. Long before its
-- deadline no round closes it, and a refusal need not wait for a plan or a dry run of it.
CREATE FUNCTION lifecycle.reopen_cohort() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM lifecycle.cohorts AS c
    WHERE c.campaign = NEW.campaign AND c.cohort_date = NEW.cohort_date AND c.not_after < now() + interval '1 hour'
    FOR NO KEY UPDATE;
    UPDATE lifecycle.cohorts AS c SET closed_at = NULL
    WHERE c.campaign = NEW.campaign AND c.cohort_date = NEW.cohort_date AND c.closed_at IS NOT NULL;
    RETURN NULL;
END $$;

-- A late refusal, a doubt settled to be sent again, a release. Nothing else puts a user back in a cohort that may be closed.
CREATE TRIGGER planned_again_opens_the_cohort AFTER UPDATE ON lifecycle.sends FOR EACH ROW
WHEN (NEW.state = 'planned' AND (OLD.state IN ('in_doubt', 'rejected') OR OLD.held_reason = 'capped'))
EXECUTE FUNCTION lifecycle.reopen_cohort();

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
        OR (OLD.state IN ('planned', 'held', 'ready') AND NEW.state = 'sent')
        OR (OLD.state = 'sending' AND NEW.state = 'ready')
        OR (OLD.state = 'ready' AND NEW.state = 'planned')
    )
)
EXECUTE FUNCTION lifecycle.write_send_event();
