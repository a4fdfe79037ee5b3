-- Somebody whose creation day was corrected moves here, unless an attempt was ever made; a slot is given back.
WITH last_batch AS (
    SELECT coalesce(max(batch) + 1, 0) AS next FROM lifecycle.sends
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
),
moving AS (
    SELECT s.user_id, (row_number() OVER (ORDER BY s.user_id) - 1) / %(batch_size)s AS chunk
    FROM arrivals AS a
    JOIN lifecycle.sends AS s USING (user_id)
    WHERE s.campaign = %(campaign)s
      AND s.occurrence = 'once'
      AND s.cohort_date <> %(cohort_date)s
      AND s.attempt IS NULL
      AND s.state IN ('planned', 'held', 'ready')
)
UPDATE lifecycle.sends AS s
SET cohort_date = %(cohort_date)s,
    batch = last_batch.next + moving.chunk,
    state = 'planned',
    held_reason = NULL,
    not_before = NULL,
    detail = format('moved from cohort %%s', s.cohort_date)
FROM moving, last_batch
WHERE s.user_id = moving.user_id
  AND s.campaign = %(campaign)s
  AND s.occurrence = 'once'
  AND s.attempt IS NULL
  AND s.state IN ('planned', 'held', 'ready')
