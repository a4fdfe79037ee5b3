-- Daily limits count the same slots as the frequency cap, cohort by cohort: the day's mails are found through the few
-- cohorts that could be mailed on it.
CREATE OR REPLACE VIEW lifecycle.cap_slots AS
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
