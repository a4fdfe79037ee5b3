-- What became of attempts, in rows that lock_sends has locked. With a token: only the row that still carries it, in
-- flight or in doubt, or waiting again when it was accepted; no match is no row and no error. Without one: something
-- refused before the gate, so only a row that is still ready. Looked up by key and updated by ctid, as in pass_gate.
WITH outcomes AS MATERIALIZED (
    SELECT o.*, mine.row_at
    FROM unnest(
        %(user_ids)s::text[], %(attempts)s::uuid[], %(verdicts)s::text[],
        %(held_reasons)s::text[], %(queue_ids)s::text[], %(details)s::text[]
    ) AS o (user_id, attempt, verdict, held_reason, queue_id, detail)
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at
        FROM lifecycle.sends AS s
        WHERE s.user_id = o.user_id AND s.campaign = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1
    ) AS mine
),
-- An attempt's own refusal may send again, and a late one before answer_due; triggers let nobody else do so.
answered AS MATERIALIZED (SELECT set_config('lifecycle.answer_was_read', 'yes', true))
UPDATE lifecycle.sends AS s
SET state = CASE
        WHEN o.verdict IN ('sent', 'rejected', 'in_doubt', 'held') THEN o.verdict::lifecycle.send_state
        WHEN s.state = 'in_doubt' THEN 'planned'
        ELSE 'ready'
    END,
    held_reason = CASE WHEN o.verdict = 'held' THEN o.held_reason::lifecycle.held_reason END,
    sent_at = CASE WHEN o.verdict = 'sent' THEN now() END,
    queue_id = coalesce(o.queue_id, s.queue_id),
    -- of a mail that was accepted the queue id says all; a row that grows little stays on its page
    detail = CASE WHEN o.verdict <> 'sent' OR o.queue_id IS NULL THEN o.detail END,
    attempts = s.attempts + CASE WHEN o.verdict = 'retry' THEN 1 ELSE 0 END,
    -- 5, 10, 20, 40, then every 60 minutes: RFC 5321 section 4.5.4.1 asks for patience that grows
    not_before = CASE
        WHEN o.verdict = 'retry' THEN now() + least(interval '5 minutes' * 2 ^ least(s.attempts, 5), interval '1 hour')
    END
FROM outcomes AS o
CROSS JOIN answered
WHERE s.ctid = o.row_at
  AND CASE
      WHEN o.attempt IS NULL THEN s.state = 'ready'
      -- also where a person gave it up and had it sent again: that is not needed any more
      WHEN o.verdict = 'sent' THEN s.attempt = o.attempt AND s.state NOT IN ('sent', 'rejected')
      ELSE s.attempt = o.attempt AND s.state IN ('sending', 'in_doubt')
           AND NOT (s.state = 'in_doubt' AND o.verdict = 'in_doubt')
  END
