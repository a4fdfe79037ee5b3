-- Somebody whose creation day was corrected moves here, unless the mail is on its way, in doubt or done; a slot is given
-- back. Attempts in vain stay with the row: whoever was not moved would be in no cohort's audience, and never mailed.
-- Runs after plan_arrivals; when that found no known user, there is nobody to move.
WITH last_batch AS (
    SELECT coalesce(max(batch) + 1, 0) AS next FROM lifecycle.sends
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
),
moving AS MATERIALIZED (
    SELECT mine.row_at, (row_number() OVER (ORDER BY a.user_id) - 1) / %(batch_size)s AS chunk
    FROM arrivals AS a
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at, s.cohort_date, s.state
        FROM lifecycle.sends AS s
        WHERE s.user_id = a.user_id AND s.campaign || '' = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1 -- one look-up per row, by key: see plan_arrivals
    ) AS mine
    WHERE %(known)s > 0
      AND mine.cohort_date <> %(cohort_date)s
      AND mine.state IN ('planned', 'held', 'ready')
)
UPDATE lifecycle.sends AS s
SET cohort_date = %(cohort_date)s,
    batch = last_batch.next + moving.chunk,
    state = 'planned',
    held_reason = NULL,
    not_before = NULL,
    detail = format('moved from cohort %%s', s.cohort_date)
FROM moving, last_batch
WHERE s.ctid = moving.row_at
  AND s.state IN ('planned', 'held', 'ready')
