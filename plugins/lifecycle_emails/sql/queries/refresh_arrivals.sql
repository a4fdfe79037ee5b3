-- Somebody who came back into the audience is judged again, and a corrected address is judged by its new hash.
-- Held for the address: judged again once it is usable, and not before. It was broken when read, or the mail server
-- could not take it.
WITH known AS MATERIALIZED (
    SELECT mine.row_at, a.address_hash
    FROM arrivals AS a
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at, s.cohort_date, s.state, s.held_reason, s.address_hash
        FROM lifecycle.sends AS s
        WHERE s.user_id = a.user_id AND s.campaign || '' = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1 -- one look-up per row, by key: see plan_arrivals
    ) AS mine
    WHERE %(known)s > 0
      AND mine.cohort_date = %(cohort_date)s
      AND mine.state IN ('planned', 'held', 'ready')
      AND CASE mine.held_reason
          WHEN 'left_audience' THEN true
          WHEN 'invalid_address' THEN a.address_hash IS NOT NULL
          ELSE mine.address_hash IS DISTINCT FROM a.address_hash
      END
)
UPDATE lifecycle.sends AS s
SET address_hash = known.address_hash,
    state = CASE WHEN s.held_reason IN ('left_audience', 'invalid_address') THEN 'planned' ELSE s.state END,
    held_reason = CASE WHEN s.held_reason IN ('left_audience', 'invalid_address') THEN NULL ELSE s.held_reason END
FROM known
WHERE s.ctid = known.row_at AND s.state IN ('planned', 'held', 'ready')
