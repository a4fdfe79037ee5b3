-- As the ledger's own; the key table leads to the few partitions that hold a user's sends.
CREATE TEMPORARY TABLE refused AS
WITH rules AS (
    SELECT *
    FROM unnest(%(rules)s::text[], %(max_sends)s::integer[], %(windows)s::interval[]) AS r (rule, max_sends, window_length)
),
candidates AS (
    SELECT user_id, cohort_date
    FROM lifecycle.judgement
    WHERE campaign = %(campaign)s
      AND cohort_date = ANY (%(cohort_dates)s)
      AND hold IS NULL
      AND (state = 'planned' OR (state = 'held' AND held_reason = 'capped' AND %(judge_capped)s))
)
SELECT c.user_id, c.cohort_date, t.rule, t.slots_taken
FROM candidates AS c
CROSS JOIN LATERAL (
    SELECT r.rule, count(*)::integer AS slots_taken
    FROM lifecycle.send_keys AS k
    CROSS JOIN LATERAL (
        SELECT state, sent_at, answer_due FROM lifecycle.sends
        WHERE user_id = k.user_id AND campaign = k.campaign AND occurrence = k.occurrence AND cohort_date = k.cohort_date
        OFFSET 0 -- key by key, in the key's own partition; as a join every partition was looked into
    ) AS s
    JOIN rules AS r ON now() - r.window_length
        < CASE s.state WHEN 'sent' THEN s.sent_at WHEN 'in_doubt' THEN s.answer_due ELSE timestamptz 'infinity' END
    WHERE k.user_id = c.user_id AND s.state IN ('ready', 'sending', 'in_doubt', 'sent')
    GROUP BY r.rule, r.max_sends
    HAVING count(*) >= r.max_sends
) AS t
