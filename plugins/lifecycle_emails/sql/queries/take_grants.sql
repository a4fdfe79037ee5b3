-- Grants for a group of mails, in one statement: at most `wanted`, one spacing after another, none later than
-- `longest_wait` seconds from now, none beyond the daily maximum. All of one group lie on one calendar day. The clock is
-- read after the row is locked, so that the moments are as near as they can be to what the caller's own clock says.
-- Gives: how many; in how many seconds the first one is, and how many lie between two; where it is fewer than wanted,
-- why, and when to ask again.
WITH locked AS MATERIALIZED (
    SELECT t AS throttle FROM lifecycle.throttles AS t WHERE t.smtp_conn_id = %(smtp_conn_id)s FOR UPDATE
),
timed AS MATERIALIZED (
    SELECT throttle, clock_timestamp() AS moment FROM locked
),
offered AS MATERIALIZED (
    SELECT
        timed.moment,
        paced.rate,
        last.at AS last_at,
        first.at AS first_at,
        today.day,
        (today.day + 1)::timestamp AT TIME ZONE (timed.throttle).timezone AS day_ends,
        counted.granted,
        lifecycle.daily_maximum(timed.throttle, today.day) - counted.granted AS by_maximum,
        CASE WHEN paced.rate IS NOT NULL THEN
            floor((%(longest_wait)s - extract(epoch FROM first.at - timed.moment)) * paced.rate) + 1
        END AS by_wait
    FROM timed
    CROSS JOIN LATERAL (SELECT lifecycle.effective_rate(timed.throttle, timed.moment) AS rate) AS paced
    CROSS JOIN LATERAL (SELECT lifecycle.last_grant(timed.throttle, timed.moment) AS at) AS last
    -- up to the next whole microsecond: rounded down, each grant would be a little too early
    CROSS JOIN LATERAL (
        SELECT CASE WHEN paced.rate IS NULL THEN timed.moment
            ELSE greatest(last.at + make_interval(secs => ceil(1000000 / paced.rate) / 1000000), timed.moment)
        END AS at
    ) AS first
    CROSS JOIN LATERAL (SELECT lifecycle.day_of_grants(timed.throttle, first.at) AS day) AS today
    CROSS JOIN LATERAL (
        SELECT CASE WHEN (timed.throttle).day >= today.day THEN (timed.throttle).granted ELSE 0 END AS granted
    ) AS counted
),
given AS MATERIALIZED (
    SELECT
        o.*,
        greatest(
            0, least(%(wanted)s, o.by_maximum, o.by_wait, ceil(extract(epoch FROM o.day_ends - o.first_at) * o.rate))
        )::integer AS grants
    FROM offered AS o
)
UPDATE lifecycle.throttles AS t
SET last_grant_at = CASE
        WHEN g.rate IS NULL THEN t.last_grant_at
        WHEN g.grants = 0 THEN g.last_at
        ELSE g.first_at + make_interval(secs => ceil((g.grants - 1) / g.rate * 1000000) / 1000000)
    END,
    day = CASE WHEN g.grants = 0 THEN least(t.day, g.day) ELSE g.day END,
    granted = CASE WHEN g.grants = 0 THEN t.granted ELSE g.granted + g.grants END
FROM given AS g
WHERE t.smtp_conn_id = %(smtp_conn_id)s
RETURNING
    g.grants,
    extract(epoch FROM g.first_at - g.moment)::double precision,
    coalesce(1 / g.rate, 0),
    CASE
        WHEN g.grants = %(wanted)s THEN NULL
        WHEN g.by_maximum <= g.grants THEN 'daily_maximum'
        WHEN g.by_wait <= g.grants THEN 'rate'
        ELSE 'day_ends'
    END,
    CASE
        WHEN g.grants = %(wanted)s THEN NULL
        WHEN g.by_maximum <= g.grants THEN g.day_ends
        ELSE g.first_at + make_interval(secs => g.grants / g.rate)
    END
