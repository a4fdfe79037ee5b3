-- The provider said "too fast": half the rate from now on. What it says of mails that were granted before that is one
-- and the same complaint.
UPDATE lifecycle.throttles AS t
SET slowed_to = greatest(lifecycle.effective_rate(t, now()) / 2, t.mails_per_second / 64),
    slowed_at = now(),
    slowed_because = %(because)s
WHERE t.smtp_conn_id = %(smtp_conn_id)s
  AND t.mails_per_second IS NOT NULL
  -- nor is one that lies ahead the same, as after a clock was put back
  AND (t.slowed_at IS NULL OR abs(extract(epoch FROM now() - t.slowed_at)) > %(one_complaint)s)
RETURNING t.slowed_to
