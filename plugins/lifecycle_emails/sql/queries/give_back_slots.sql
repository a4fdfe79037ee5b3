-- ready -> planned, in a cohort that awaits approval: it holds no slots of the frequency cap.
UPDATE lifecycle.sends
SET state = 'planned', detail = 'its cohort awaits approval'
WHERE campaign = %(campaign)s AND cohort_date = %(cohort_date)s AND state = 'ready'
