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
