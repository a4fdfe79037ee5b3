-- What could be forgotten: an attempt made before a backup, and again in the time that the ledger has lost since.

-- Perhaps sent in a time that the ledger has forgotten: whoever was never gated, and whoever was gated before that time
-- (refused then, and gated again in it). Such a row may become in_doubt, in the transaction of the release, or when it
-- first comes into a cohort of the lost time.
CREATE OR REPLACE FUNCTION lifecycle.check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
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
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = format('the ledger forbids this update on lifecycle.sends: %s -> %s is no transition; see docs/ledger.md', OLD.state, NEW.state);
END $$;
