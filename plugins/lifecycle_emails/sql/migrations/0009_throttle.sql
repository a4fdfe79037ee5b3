-- The throttle: what an SMTP connection's provider takes, and what was granted of it, for all tasks on all workers.

-- One row per throttled SMTP connection. The terms are those of throttles.yaml as the last task that started read them;
-- the rest counts. Grants are moves of last_grant_at: whoever moves it by k times the spacing may begin k mails, the last
-- at its new value.
CREATE TABLE lifecycle.throttles (
    smtp_conn_id text COLLATE "C" PRIMARY KEY,
    mails_per_second double precision,
    mails_per_day integer,
    timezone text NOT NULL,
    warm_up_first_day date,
    warm_up_mails_per_day integer[],
    connections integer,
    -- the next moment is one spacing of the rate in force then later
    last_grant_at timestamptz NOT NULL DEFAULT '-infinity',
    -- grants of `day`, a calendar day in `timezone`; a grant that no mail was sent by counts
    day date,
    granted integer NOT NULL DEFAULT 0,
    -- the rate as it was after the provider said "too fast", when, and what it said; it recovers from there
    slowed_to double precision,
    slowed_at timestamptz,
    slowed_because text,
    CONSTRAINT throttle_rate_is_positive CHECK (mails_per_second > 0),
    CONSTRAINT throttle_day_is_positive CHECK (mails_per_day > 0),
    CONSTRAINT throttle_connections_are_positive CHECK (connections > 0),
    CONSTRAINT throttle_warm_up_is_whole CHECK (num_nonnulls(warm_up_first_day, warm_up_mails_per_day) IN (0, 2)),
    CONSTRAINT throttle_slowing_is_whole CHECK (num_nonnulls(slowed_to, slowed_at, slowed_because) IN (0, 3)),
    CONSTRAINT throttle_grants_are_counted CHECK (granted >= 0)
) WITH (fillfactor = 50);

-- The last moment granted, as of a moment: nothing is granted further ahead than five seconds (LONGEST_WAIT_SECONDS of
-- ledger/throttle.py), so what lies more than a minute ahead was granted by a wrong clock, and would keep everybody waiting.
-- It counts as now. A clock that was put back by less is waited for, since what it granted is still being sent.
CREATE FUNCTION lifecycle.last_grant(throttle lifecycle.throttles, moment timestamptz)
RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
SELECT CASE WHEN throttle.last_grant_at > moment + interval '1 min' THEN moment ELSE throttle.last_grant_at END
$$;

-- What was granted stays granted, or the same moments could be given twice.
CREATE TRIGGER throttle_never_grants_twice BEFORE UPDATE ON lifecycle.throttles FOR EACH ROW
WHEN (NEW.last_grant_at < lifecycle.last_grant(OLD, now()) OR (NEW.day = OLD.day AND NEW.granted < OLD.granted))
EXECUTE FUNCTION lifecycle.refuse('a grant is never taken back');

CREATE TRIGGER throttle_is_never_deleted BEFORE DELETE OR TRUNCATE ON lifecycle.throttles FOR EACH STATEMENT
EXECUTE FUNCTION lifecycle.refuse('its counts would begin anew; take it out of throttles.yaml and nothing obeys it');

-- SMTP connections that tasks hold: a lease each, so that those of a killed task come free.
CREATE TABLE lifecycle.throttle_connections (
    holder uuid PRIMARY KEY,
    smtp_conn_id text COLLATE "C" NOT NULL REFERENCES lifecycle.throttles,
    connections integer NOT NULL,
    leased_until timestamptz NOT NULL,
    CONSTRAINT throttle_lease_holds_connections CHECK (connections > 0)
);

-- Mails per second at a time: after a slow-down it grows by a twentieth of the configured rate a minute, up to that rate.
-- Where the server's clock was put back, or another server took over, the slow-down may lie ahead: then it stays as it is.
CREATE FUNCTION lifecycle.effective_rate(throttle lifecycle.throttles, moment timestamptz)
RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
SELECT least(
    throttle.mails_per_second,
    throttle.slowed_to
        + throttle.mails_per_second
            * greatest(extract(epoch FROM moment - throttle.slowed_at)::double precision, 0) / (20 * 60)
)
$$;

-- The most mails of a day, NULL for no limit: the smaller one of mails_per_day and, while it lasts, the warm-up's.
CREATE FUNCTION lifecycle.daily_maximum(throttle lifecycle.throttles, on_day date)
RETURNS integer LANGUAGE sql IMMUTABLE AS $$
SELECT least(
    throttle.mails_per_day,
    throttle.warm_up_mails_per_day[greatest(on_day - throttle.warm_up_first_day, 0) + 1]
)
$$;

-- The day that a grant of a moment counts for: never back to an earlier one, as by another zone or a clock put back, whose
-- mails would be counted anew. A day further ahead than two zones can be apart was counted by a wrong clock, and its grants
-- count for the moment's own day.
CREATE FUNCTION lifecycle.day_of_grants(throttle lifecycle.throttles, moment timestamptz)
RETURNS date LANGUAGE sql STABLE AS $$
SELECT CASE WHEN throttle.day > local.day + 2 THEN local.day ELSE greatest(local.day, throttle.day) END
FROM (SELECT (moment AT TIME ZONE throttle.timezone)::date AS day) AS local
$$;

-- For people: every throttle as it stands now.
CREATE VIEW lifecycle.throttles_now AS
SELECT
    t.smtp_conn_id,
    t.mails_per_second,
    lifecycle.effective_rate(t, now()) AS effective_rate,
    today.day,
    CASE WHEN t.day >= today.day THEN t.granted ELSE 0 END AS granted_today,
    lifecycle.daily_maximum(t, today.day) AS daily_maximum,
    t.timezone,
    t.connections,
    (
        SELECT coalesce(sum(c.connections), 0)::integer FROM lifecycle.throttle_connections AS c
        WHERE c.smtp_conn_id = t.smtp_conn_id AND c.leased_until > now()
    ) AS connections_held,
    t.slowed_to,
    t.slowed_at,
    t.slowed_because,
    -- when the next mail may begin by the rate, NULL without one; and when the next day begins
    greatest(
        lifecycle.last_grant(t, now()) + make_interval(secs => 1 / lifecycle.effective_rate(t, now())),
        CASE WHEN t.mails_per_second IS NOT NULL THEN now() END
    ) AS next_free_at,
    (today.day + 1)::timestamp AT TIME ZONE t.timezone AS day_ends
FROM lifecycle.throttles AS t
CROSS JOIN LATERAL (SELECT lifecycle.day_of_grants(t, now()) AS day) AS today;
