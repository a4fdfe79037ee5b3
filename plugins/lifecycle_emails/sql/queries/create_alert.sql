INSERT INTO lifecycle.alerts (kind, campaign, cohort_date, run, facts, callbacks)
VALUES (%(kind)s, %(campaign)s, %(cohort_date)s, %(run)s, %(facts)s, %(callbacks)s)
RETURNING alert_id
