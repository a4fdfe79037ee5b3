-- The provider said "too fast": half the rate from now on. What it says of mails that were granted before that is one
-- and the same complaint.
UPDATE lifecycle.throttles AS t
SET slowed_to = greatest(lifecycle.effective_rate(t, now()) / 2, t.mails_per_second / 64),
    slowed_at = now(),
    slowed_because = %(because)s
WHERE t.smtp_conn_id = %(smtp_conn_id)s
  AND t.mails_per_second IS NOT NULL
  AND (t.slowed_at IS NULL OR t.slowed_at < now() - make_interval(secs => %(one_complaint)s))
RETURNING t.slowed_to
