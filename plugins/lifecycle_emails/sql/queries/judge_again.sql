-- held -> planned, where the reason may have gone: no longer suppressed, deadline extended (whoever has been suppressed
-- meanwhile is then held for that), template mended.
-- `capped` and `daily_limit` wait for limit_rate; `left_audience` for the audience to return the user, `invalid_address` for it to return
-- a usable address (see refresh_arrivals).
UPDATE lifecycle.judgement
SET state = 'planned', held_reason = NULL, detail = NULL
WHERE campaign = %(campaign)s
  AND cohort_date = ANY (%(cohort_dates)s)
  AND state = 'held'
  AND held_reason IN ('suppressed', 'stale', 'render_failed')
  AND (hold IS NULL OR (held_reason = 'stale' AND hold <> 'stale'))
