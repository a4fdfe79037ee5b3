-- Longer deadlines: a cohort's deadline is frozen, and the only way to a later one is a person's extension of it,
-- written down in the same transaction.

CREATE TABLE lifecycle.extensions (
    extension_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign text COLLATE "C" NOT NULL,
    cohort_from date NOT NULL,
    cohort_to date NOT NULL,
    days integer NOT NULL,
    extended_at timestamptz NOT NULL DEFAULT now(),
    extended_by text NOT NULL,
    reason text NOT NULL,
    -- what was approved: cohorts, and users in them who may be sent by it
    cohorts integer NOT NULL,
    users bigint NOT NULL,
    CONSTRAINT extension_lengthens CHECK (days > 0),
    CONSTRAINT extension_range_is_in_order CHECK (cohort_from <= cohort_to),
    CONSTRAINT extension_has_a_reason CHECK (btrim(reason) <> '')
);

CREATE TRIGGER extension_is_never_rewritten BEFORE UPDATE OR DELETE OR TRUNCATE ON lifecycle.extensions FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('what was approved is kept');

-- A deadline may move later, by the days of an extension of this transaction, and nothing else of a cohort ever changes.
CREATE OR REPLACE FUNCTION lifecycle.check_frozen_cohort() RETURNS trigger LANGUAGE plpgsql AS $$
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
