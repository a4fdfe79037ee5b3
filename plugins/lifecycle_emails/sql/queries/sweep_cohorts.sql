-- No answer within its time: sending -> in_doubt, and never anything else. A late answer still settles it.
-- A row that somebody has locked is left to the next sweep: it may be about to get its answer, and must not keep all
-- others from being told.
WITH overdue AS MATERIALIZED (
    SELECT s.ctid AS row_at
    FROM lifecycle.cohorts AS c
    JOIN lifecycle.sends AS s ON s.campaign = c.campaign AND s.cohort_date = c.cohort_date
    WHERE c.campaign = %(campaign)s
      AND (c.closed_at IS NULL OR c.cohort_date = ANY (%(cohort_dates)s))
      AND s.state = 'sending'
      AND s.answer_due < now()
    FOR UPDATE OF s SKIP LOCKED
)
UPDATE lifecycle.sends AS s
SET state = 'in_doubt', detail = 'no answer to the final dot was recorded in time'
FROM overdue AS o
WHERE s.ctid = o.row_at AND s.state = 'sending'
