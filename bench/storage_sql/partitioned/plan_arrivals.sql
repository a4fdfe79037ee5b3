-- As the ledger's own, with the key taken first.
WITH last_batch AS (
    SELECT coalesce(max(batch) + 1, 0) AS next FROM lifecycle.sends
    WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
),
new AS (
    INSERT INTO lifecycle.send_keys (user_id, campaign, cohort_date)
    SELECT a.user_id, %(campaign)s, %(cohort_date)s
    FROM arrivals AS a
    WHERE NOT EXISTS (
        SELECT FROM lifecycle.send_keys AS k
        WHERE k.user_id = a.user_id AND k.campaign = %(campaign)s AND k.occurrence = 'once'
    )
    ORDER BY a.user_id
    ON CONFLICT (user_id, campaign, occurrence) DO NOTHING
    RETURNING user_id
)
INSERT INTO lifecycle.sends (user_id, campaign, cohort_date, batch, address_hash)
SELECT
    a.user_id,
    %(campaign)s,
    %(cohort_date)s,
    last_batch.next + (row_number() OVER (ORDER BY a.user_id) - 1) / %(batch_size)s,
    a.address_hash
FROM new
JOIN arrivals AS a USING (user_id)
CROSS JOIN last_batch
ORDER BY a.user_id
