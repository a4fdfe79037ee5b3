-- The volume breaker: a cohort of a size that the last weeks did not have goes out only when a person approves.

CREATE TYPE lifecycle.volume_verdict AS ENUM ('within', 'awaiting_approval', 'approved', 'refused');

-- `volume_size` is the size that the verdict is about: of `within` the largest seen, of `approved` the one approved.
ALTER TABLE lifecycle.cohorts
    ADD COLUMN volume_verdict lifecycle.volume_verdict,
    ADD COLUMN volume_size integer,
    ADD COLUMN volume_figures jsonb,
    ADD COLUMN volume_decided_at timestamptz,
    ADD COLUMN volume_decided_by text,
    ADD COLUMN volume_reason text,
    ADD CONSTRAINT volume_verdict_is_about_a_size CHECK ((volume_verdict IS NULL) = (volume_size IS NULL)),
    ADD CONSTRAINT volume_decision_says_who_and_why CHECK (
        num_nonnulls(volume_decided_at, volume_decided_by, volume_reason)
        = CASE WHEN volume_verdict IN ('approved', 'refused') THEN 3 ELSE 0 END
    );

COMMENT ON COLUMN lifecycle.cohorts.volume_verdict IS
    'Whether the cohort is of a usual size; limit_rate and the gate obey it. NULL: never looked at, goes out.';

-- The cohorts that do not go out.
CREATE INDEX cohorts_to_approve ON lifecycle.cohorts (campaign, cohort_date)
    WHERE volume_verdict IN ('awaiting_approval', 'refused');
CREATE VIEW lifecycle.cohorts_held_back AS
SELECT campaign, cohort_date
FROM lifecycle.cohorts
WHERE volume_verdict IN ('awaiting_approval', 'refused');

-- Who decided what about which size, and why. Written in the transaction of the decision.
CREATE TABLE lifecycle.volume_decisions (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    decided_by text NOT NULL,
    -- false: nobody answered in time
    by_a_person boolean NOT NULL,
    database_role text NOT NULL DEFAULT session_user,
    reason text NOT NULL,
    from_verdict lifecycle.volume_verdict NOT NULL,
    verdict lifecycle.volume_verdict NOT NULL,
    size integer NOT NULL,
    figures jsonb NOT NULL,
    CONSTRAINT volume_decision_is_one CHECK (
        (from_verdict = 'awaiting_approval' AND verdict IN ('approved', 'refused'))
        OR (from_verdict = 'refused' AND verdict = 'approved')
    ),
    CONSTRAINT volume_decision_has_a_name CHECK (btrim(decided_by) <> ''),
    CONSTRAINT volume_decision_has_a_reason CHECK (btrim(reason) <> ''),
    CONSTRAINT only_a_person_approves CHECK (by_a_person OR verdict = 'refused')
);

CREATE TRIGGER volume_decision_is_never_rewritten
BEFORE UPDATE OR DELETE OR TRUNCATE ON lifecycle.volume_decisions FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('what was decided is kept');

-- The figures move a cohort between `within` and `awaiting_approval`, and many latecomers an approved one back to
-- `awaiting_approval`. Everything else is a decision, written down in the same transaction.
CREATE FUNCTION lifecycle.check_volume_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.volume_verdict IS NULL OR OLD.volume_verdict IN ('within', 'awaiting_approval'))
       AND NEW.volume_verdict IN ('within', 'awaiting_approval')
    THEN
        RETURN NEW;
    END IF;
    IF OLD.volume_verdict = 'approved' AND NEW.volume_verdict = 'awaiting_approval'
       AND NEW.volume_size > OLD.volume_size
    THEN
        RETURN NEW;
    END IF;
    IF NEW.volume_size = OLD.volume_size AND EXISTS (
        SELECT FROM lifecycle.volume_decisions AS d
        WHERE d.campaign = NEW.campaign AND d.cohort_date = NEW.cohort_date
          AND d.decided_at = now() AND d.decided_at = NEW.volume_decided_at
          AND d.decided_by = NEW.volume_decided_by AND d.reason = NEW.volume_reason
          AND d.from_verdict = OLD.volume_verdict AND d.verdict = NEW.volume_verdict
          AND d.size = NEW.volume_size
    ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        MESSAGE = format(
            'the ledger forbids this update on lifecycle.cohorts: the volume verdict of cohort %s of campaign %s goes'
            ' from %s to %s by a decision only, with name and reason; see docs/ledger.md',
            NEW.cohort_date, NEW.campaign, coalesce(OLD.volume_verdict::text, 'none'),
            coalesce(NEW.volume_verdict::text, 'none')
        );
END $$;

CREATE TRIGGER volume_verdict_is_legal BEFORE UPDATE ON lifecycle.cohorts FOR EACH ROW
WHEN (
    (OLD.volume_verdict, OLD.volume_size, OLD.volume_decided_at, OLD.volume_decided_by, OLD.volume_reason)
    IS DISTINCT FROM
    (NEW.volume_verdict, NEW.volume_size, NEW.volume_decided_at, NEW.volume_decided_by, NEW.volume_reason)
)
EXECUTE FUNCTION lifecycle.check_volume_verdict();

CREATE TRIGGER cohort_starts_without_a_volume_verdict BEFORE INSERT ON lifecycle.cohorts FOR EACH ROW
WHEN (NEW.volume_verdict IS NOT NULL)
EXECUTE FUNCTION lifecycle.refuse('a cohort begins without a volume verdict');
