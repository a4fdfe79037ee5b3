-- A month of history as it is when all is over: each user has a row in both campaigns, 98 of 100 sent, 2 held.
-- User number n has a random-looking uuid made from n, and came on day n / users_per_day.
INSERT INTO history_chunk (
    user_id, campaign, cohort_date, batch, state, held_reason, planned_at, ready_at, gate_at, answer_due, sent_at,
    attempt, address_hash, template_version, queue_id, detail
)
SELECT
    md5('user ' || n)::uuid::text,
    campaign,
    %(first)s::date + (n / %(users_per_day)s)::integer,
    (n %% %(users_per_day)s) / 500,
    CASE WHEN sent THEN 'sent' ELSE 'held' END::lifecycle.send_state,
    CASE WHEN NOT sent THEN 'suppressed' END::lifecycle.held_reason,
    tick,
    CASE WHEN sent THEN tick + interval '1 minute' END,
    CASE WHEN sent THEN tick + interval '2 minutes' END,
    CASE WHEN sent THEN tick + interval '13 minutes' END,
    CASE WHEN sent THEN tick + interval '2 minutes' + n %% 1000 * interval '1 second' END,
    CASE WHEN sent THEN gen_random_uuid() END,
    decode(md5('address ' || n), 'hex'),
    CASE WHEN sent THEN '0f1e2d3c4b5a' END,
    CASE WHEN sent THEN substr(md5(n::text), 1, 12) END,
    CASE
        WHEN sent THEN 'dot: 250 2.0.0 Ok: queued as ' || substr(md5(n::text), 1, 12)
        ELSE 'on the suppression list'
    END
FROM generate_series(%(from_user)s::bigint, %(to_user)s::bigint - 1) AS n
CROSS JOIN unnest(ARRAY['day4_follow_up', 'day4_setup_help']) AS campaign
CROSS JOIN LATERAL (
    SELECT
        n %% 50 <> 7 AS sent,
        (%(first)s::date + (n / %(users_per_day)s)::integer)::timestamptz + interval '4 days 6 hours' AS tick
) AS facts
ORDER BY 3, 2, 1
