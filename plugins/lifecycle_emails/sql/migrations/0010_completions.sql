-- The last time that others were told that a cohort is complete: no planned, ready or sending row. Told again when its
-- counts have changed since, and by the same run, whose telling may have been lost.
CREATE TABLE lifecycle.completions (
    campaign text COLLATE "C" NOT NULL,
    cohort_date date NOT NULL,
    run text NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    counts jsonb NOT NULL,
    PRIMARY KEY (campaign, cohort_date),
    FOREIGN KEY (campaign, cohort_date) REFERENCES lifecycle.cohorts
);
