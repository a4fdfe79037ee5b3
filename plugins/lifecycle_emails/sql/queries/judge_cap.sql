-- The users to be judged and how many slots each has taken under each rule; run after taking the cap lock, and after
-- hold_unsendable, so that whoever is planned may be sent. Most have no slot at all, and nothing is counted for them.
-- Refused under a rule: as many slots as it allows are taken within its window. A row per (user, rule) refused.
CREATE TEMPORARY TABLE refused AS
WITH rules AS (
    SELECT *
    FROM unnest(%(rules)s::text[], %(max_sends)s::integer[], %(windows)s::interval[]) AS r (rule, max_sends, window_length)
),
candidates AS (
    SELECT user_id, cohort_date
    FROM lifecycle.judgement AS j
    WHERE campaign = %(campaign)s
      AND cohort_date = ANY (%(cohort_dates)s)
      AND (
          state = 'planned'
          OR (
              state = 'held' AND hold IS NULL
              AND (held_reason = 'daily_limit' OR (held_reason = 'capped' AND %(judge_capped)s))
          )
      )
      AND EXISTS (SELECT FROM lifecycle.cap_slots AS any_slot WHERE any_slot.user_id = j.user_id OFFSET 0)
)
SELECT c.user_id, c.cohort_date, t.rule, t.slots_taken
FROM candidates AS c
CROSS JOIN LATERAL (
    SELECT r.rule, count(*)::integer AS slots_taken
    FROM lifecycle.cap_slots AS slot
    JOIN rules AS r ON slot.slot_at > now() - r.window_length
    WHERE slot.user_id = c.user_id
    GROUP BY r.rule, r.max_sends
    HAVING count(*) >= r.max_sends
) AS t
