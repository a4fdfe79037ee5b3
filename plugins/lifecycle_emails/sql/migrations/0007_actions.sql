-- What people did to the ledger: each act with who, why and what came of it, written in the act's own transaction.

CREATE TABLE lifecycle.actions (
    action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    -- who vouches for the actor's name: Airflow, which let the user trigger the run, or the database, whose role it is
    actor_kind text NOT NULL,
    database_role text NOT NULL DEFAULT session_user,
    action text NOT NULL,
    -- what was asked, without any address: user ids, dates, numbers, and for an address its keyed hash
    arguments jsonb NOT NULL,
    reason text NOT NULL,
    -- NULL: begun, and what came of it was never recorded (a test mail whose task was killed)
    result text,
    run_key text,
    CONSTRAINT action_of_a_run_is_done_once UNIQUE (run_key),
    CONSTRAINT action_actor_kind_is_known CHECK (actor_kind IN ('airflow', 'command')),
    CONSTRAINT action_of_airflow_names_its_run CHECK ((actor_kind = 'airflow') = (run_key IS NOT NULL)),
    CONSTRAINT action_has_an_actor CHECK (btrim(actor) <> ''),
    CONSTRAINT action_has_a_reason CHECK (btrim(reason) <> '')
);
CREATE INDEX actions_by_time ON lifecycle.actions (happened_at);

COMMENT ON TABLE lifecycle.actions IS 'The audit of what people did: written with the act, in one transaction.';
COMMENT ON COLUMN lifecycle.actions.run_key IS
    'DAG id and run id of the Airflow run that asked for this; NULL for commands. The one place in the ledger where a run'
    ' id is a key: a run of lifecycle_operations is one order of one person, so clearing or retrying it repeats nothing.';

-- An audit is only added to; a result may follow its act once.
CREATE TRIGGER action_is_never_rewritten BEFORE UPDATE ON lifecycle.actions FOR EACH ROW
WHEN (
    OLD.result IS NOT NULL
    OR to_jsonb(OLD) - 'result' IS DISTINCT FROM to_jsonb(NEW) - 'result'
)
EXECUTE FUNCTION lifecycle.refuse('what people did is kept as it was written');

CREATE TRIGGER action_is_never_deleted BEFORE DELETE OR TRUNCATE ON lifecycle.actions FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('what people did is kept');
