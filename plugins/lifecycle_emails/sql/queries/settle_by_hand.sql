-- in_doubt -> sent or planned, by a person: only what can no longer be answered, in rows that lock_doubts has locked.
UPDATE lifecycle.sends AS s
SET state = %(state)s::lifecycle.send_state,
    sent_at = CASE WHEN %(state)s = 'sent' THEN s.answer_due END,
    not_before = NULL,
    detail = %(detail)s
WHERE s.campaign = %(campaign)s
  AND s.user_id = ANY (%(user_ids)s)
  AND s.occurrence = 'once'
  AND s.state = 'in_doubt'
  AND s.answer_due < now()
  AND NOT EXISTS (
      SELECT FROM lifecycle.batches AS b
      WHERE b.campaign = s.campaign AND b.cohort_date = s.cohort_date AND b.batch = s.batch
        AND b.lease_until >= now()
  )
  AND (%(state)s = 'sent' OR s.queue_id IS NULL)
