-- Users as they are when all is over: a row in every campaign, 98 of 100 sent, 2 held. User number n came on day
-- (n - first_user) / users_per_day; rows lie in the order in which the days were planned.
INSERT INTO lifecycle.sends (
    user_id, campaign, cohort_date, batch, state, held_reason, attempts, planned_at, ready_at, gate_at, answer_due,
    sent_at, attempt, address_hash, template_version, queue_id, detail
)
SELECT
    {user_id}::text,
    campaign,
    day,
    (number %% %(users_per_day)s) / 500,
    CASE WHEN sent THEN 'sent' ELSE 'held' END::lifecycle.send_state,
    CASE WHEN NOT sent THEN 'suppressed' END::lifecycle.held_reason,
    sent::integer,
    tick,
    CASE WHEN sent THEN tick + interval '1 minute' END,
    CASE WHEN sent THEN tick + interval '2 minutes' END,
    CASE WHEN sent THEN tick + interval '13 minutes' END,
    CASE WHEN sent THEN tick + interval '2 minutes' + number %% 1000 * interval '1 second' END,
    CASE WHEN sent THEN gen_random_uuid() END,
    decode(md5('address ' || n), 'hex'),
    CASE WHEN sent THEN '0f1e2d3c4b5a' END,
    CASE WHEN sent THEN substr(md5(n::text), 1, 12) END,
    CASE WHEN sent THEN 'dot: 250 2.0.0 Ok: queued as ' || substr(md5(n::text), 1, 12) ELSE 'on the suppression list' END
FROM generate_series(%(from_user)s::bigint, %(to_user)s::bigint - 1) AS n
CROSS JOIN unnest(%(campaigns)s::text[]) WITH ORDINALITY AS c (campaign, place)
CROSS JOIN LATERAL (
    SELECT
        n - %(first_user)s AS number,
        n %% 50 <> 7 AS sent,
        %(first)s::date + ((n - %(first_user)s) / %(users_per_day)s)::integer AS day
) AS facts
CROSS JOIN LATERAL (SELECT day::timestamptz + interval '4 days 6 hours' AS tick) AS time
ORDER BY day, place, n
