-- No answer within its time: sending -> in_doubt, and never anything else. A late answer still settles it.
UPDATE lifecycle.sends AS s
SET state = 'in_doubt', detail = 'no answer to the final dot was recorded in time'
FROM lifecycle.cohorts AS c
WHERE c.campaign = %(campaign)s
  AND (c.closed_at IS NULL OR c.cohort_date = ANY (%(cohort_dates)s))
  AND s.campaign = c.campaign
  AND s.cohort_date = c.cohort_date
  AND s.state = 'sending'
  AND s.answer_due < now()
