-- How many mails the daily limits still allow today; run under the cap lock. Ready rows count for the day on which they
-- are judged, so a day that begins with rows left over from yesterday begins with that much less room. now() may be
-- older than the lock: that day's count then holds today's too, and the room is too small rather than too large.
-- Only cohorts that could be mailed today are looked at: an answer comes less than a day after the deadline.
SELECT min(greatest(0, l.max_sends - (
    SELECT coalesce(sum(slots.taken), 0)
    FROM lifecycle.cohorts AS c
    CROSS JOIN LATERAL (
        SELECT count(*) AS taken
        FROM lifecycle.cap_slots AS slot
        WHERE slot.campaign = c.campaign
          AND slot.cohort_date = c.cohort_date
          AND slot.slot_at >= date_trunc('day', now(), l.timezone)
    ) AS slots
    WHERE (l.campaign IS NULL OR c.campaign = l.campaign)
      AND c.not_after > date_trunc('day', now(), l.timezone) - interval '1 day'
)))::bigint
FROM unnest(%(limit_campaigns)s::text[], %(limit_timezones)s::text[], %(limit_max_sends)s::integer[])
    AS l (campaign, timezone, max_sends)
