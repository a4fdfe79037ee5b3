-- held -> planned, where the reason may have gone: no longer suppressed, deadline extended, template or address mended.
-- `capped` waits for limit_rate; `left_audience` for the audience to return the user; `daily_limit` for its own day.
UPDATE lifecycle.sends AS s
SET state = 'planned', held_reason = NULL, detail = NULL
FROM lifecycle.judgement AS j
WHERE j.campaign = %(campaign)s
  AND j.cohort_date = ANY (%(cohort_dates)s)
  AND j.state = 'held'
  AND j.held_reason IN ('suppressed', 'stale', 'invalid_address', 'render_failed')
  AND j.hold IS NULL
  AND (s.user_id, s.campaign, s.occurrence) = (j.user_id, j.campaign, j.occurrence)
  AND s.state = 'held'
