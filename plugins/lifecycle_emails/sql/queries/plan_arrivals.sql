-- New keys only; under the campaign's lock nobody else adds one, and if somebody did, the plan would fail as a whole.
-- A batch is a chunk of ids in order, written once; latecomers go into batches of their own.
WITH last_batch AS (
    SELECT coalesce(max(batch) + 1, 0) AS next FROM lifecycle.sends
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
)
INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch, address_hash)
SELECT
    a.user_id,
    %(campaign)s,
    %(cohort_date)s,
    last_batch.next + (row_number() OVER (ORDER BY a.user_id) - 1) / %(batch_size)s,
    a.address_hash
FROM arrivals AS a
CROSS JOIN last_batch
WHERE NOT EXISTS (
    SELECT FROM lifecycle.sends AS s
    WHERE s.user_id = a.user_id AND s.campaign || '' = %(campaign)s AND s.occurrence = 'once'
    OFFSET 0 -- one look-up per row, in order of the key; with || no other index than the key's can be taken for it
)
ORDER BY a.user_id
