-- As the ledger's own, by way of the key table; a moved row changes its partition.
WITH last_batch AS (
    SELECT coalesce(max(batch) + 1, 0) AS next FROM lifecycle.sends
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
),
moving AS (
    SELECT s.user_id, s.cohort_date, (row_number() OVER (ORDER BY s.user_id) - 1) / %(batch_size)s AS chunk
    FROM arrivals AS a
    JOIN lifecycle.send_keys AS k
        ON k.user_id = a.user_id AND k.campaign = %(campaign)s AND k.occurrence = 'once' AND k.cohort_date <> %(cohort_date)s
    CROSS JOIN LATERAL (
        SELECT user_id, cohort_date, state FROM lifecycle.sends
        WHERE user_id = k.user_id AND campaign = k.campaign AND occurrence = k.occurrence AND cohort_date = k.cohort_date
        OFFSET 0 -- key by key, in the key's own partition; as a join every partition was read
    ) AS s
    WHERE s.state IN ('planned', 'held', 'ready')
),
keys AS (
    UPDATE lifecycle.send_keys AS k
    SET cohort_date = %(cohort_date)s
    FROM moving
    WHERE k.user_id = moving.user_id AND k.campaign = %(campaign)s AND k.occurrence = 'once'
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
  AND s.cohort_date = moving.cohort_date
