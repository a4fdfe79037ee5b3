INSERT INTO lifecycle.volume_decisions
    (campaign, cohort_date, decided_by, by_a_person, reason, from_verdict, verdict, size, figures)
SELECT
    campaign, cohort_date, %(actor)s, %(by_a_person)s, %(reason)s, volume_verdict,
    %(verdict)s::lifecycle.volume_verdict, volume_size, volume_figures
FROM lifecycle.cohorts
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s
