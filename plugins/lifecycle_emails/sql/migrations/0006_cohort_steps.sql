-- Which run did which step for which cohort.
--
-- A row of sends does not name its run: that would cost every row of every step. This table names the run of each step,
-- and the times of a send and of its history say which one it was.
CREATE TABLE lifecycle.cohort_steps (
    step_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    step text NOT NULL,
    run text NOT NULL,
    started_at timestamptz NOT NULL,
    code_version text NOT NULL,
    CONSTRAINT step_is_known CHECK (step IN ('extract_cohort', 'filter_ledger', 'limit_rate', 'send_batch', 'probe'))
);
CREATE INDEX cohort_steps_by_time ON lifecycle.cohort_steps (campaign, cohort_date, started_at);
