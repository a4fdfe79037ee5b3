-- One row per user and rule, unless one for them is younger than the rule's window. A refusal that nobody was told
-- of, since its campaign has no callbacks, does not keep a campaign that has some from telling.
INSERT INTO lifecycle.cap_refusals (user_id, rule, campaign, cohort_date, slots_taken)
SELECT f.user_id, f.rule, %(campaign)s, f.cohort_date, f.slots_taken
FROM refused AS f
JOIN unnest(%(rules)s::text[], %(windows)s::interval[]) AS r (rule, window_length) USING (rule)
WHERE NOT EXISTS (
    SELECT FROM lifecycle.cap_refusals AS earlier
    WHERE earlier.user_id = f.user_id AND earlier.rule = f.rule AND earlier.refused_at > now() - r.window_length
      AND (
          NOT %(tells)s
          OR EXISTS (
              SELECT FROM lifecycle.alerts AS a WHERE a.alert_id = earlier.alert_id AND cardinality(a.callbacks) > 0
          )
      )
    OFFSET 0 -- one look-up per row, through the index
)
RETURNING refusal_id, user_id, rule, cohort_date
