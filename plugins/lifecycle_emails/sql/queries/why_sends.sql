-- Everything the ledger keeps of a user's sends, with their cohorts.
SELECT
    s.campaign, s.cohort_date, s.batch, s.state::text, s.held_reason::text, s.attempts, s.planned_at, s.ready_at,
    s.not_before, s.gate_at, s.answer_due, s.sent_at, s.template_version, s.code_version, s.queue_id, s.detail,
    c.not_after AS deadline, c.volume_verdict::text
FROM lifecycle.sends AS s
JOIN lifecycle.cohorts AS c USING (campaign, cohort_date)
WHERE s.user_id = %(user_id)s
ORDER BY s.planned_at, s.campaign
