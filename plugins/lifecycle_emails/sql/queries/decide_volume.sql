-- In the transaction of record_volume_decision, or the trigger refuses it.
UPDATE lifecycle.cohorts
SET volume_verdict = %(verdict)s::lifecycle.volume_verdict,
    volume_decided_at = now(),
    volume_decided_by = %(actor)s,
    volume_reason = %(reason)s
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
