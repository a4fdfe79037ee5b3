-- What the figures say of a cohort. A decision about it, if there was one, is kept in volume_decisions.
UPDATE lifecycle.cohorts
SET volume_verdict = %(verdict)s::lifecycle.volume_verdict,
    volume_size = %(size)s,
    volume_figures = %(figures)s,
    volume_decided_at = NULL,
    volume_decided_by = NULL,
    volume_reason = NULL
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
