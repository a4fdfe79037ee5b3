-- The users to be judged and how many slots each has taken under each rule; run after taking the cap lock, and after
-- hold_unsendable, so that whoever is planned may be sent. A batch of users is looked up at once, by the key: they come
-- in its order, and a look-up for each took twice as long.
-- Refused under a rule: as many slots as it allows are taken within its window. A row per (user, rule) refused.
CREATE TEMPORARY TABLE refused AS
WITH rules AS (
    SELECT *
    FROM unnest(%(rules)s::text[], %(max_sends)s::integer[], %(windows)s::interval[]) AS r (rule, max_sends, window_length)
),
candidates AS (
    SELECT cohort_date, array_agg(user_id) AS user_ids
    FROM lifecycle.judgement
    WHERE campaign = %(campaign)s
      AND cohort_date = ANY (%(cohort_dates)s)
      AND (
          state = 'planned'
          OR (
              state = 'held'
              AND (held_reason = 'daily_limit' OR (held_reason = 'capped' AND %(judge_capped)s))
              AND hold IS NULL
          )
      )
    GROUP BY cohort_date, batch
)
SELECT t.user_id, c.cohort_date, t.rule, t.slots_taken
FROM candidates AS c
CROSS JOIN LATERAL (
    SELECT slot.user_id, r.rule, count(*)::integer AS slots_taken
    FROM lifecycle.cap_slots AS slot
    JOIN rules AS r ON slot.slot_at > now() - r.window_length
    WHERE slot.user_id = ANY (c.user_ids)
    GROUP BY slot.user_id, r.rule, r.max_sends
    HAVING count(*) >= r.max_sends
) AS t
