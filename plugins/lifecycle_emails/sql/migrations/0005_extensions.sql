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
