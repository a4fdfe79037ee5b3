-- Whose address is no usable one takes no slot: `ready` means that a mail can be made and addressed.
WITH unaddressed AS MATERIALIZED (
    SELECT mine.row_at, a.address_mistake
    FROM arrivals AS a
    CROSS JOIN LATERAL (
        SELECT s.ctid AS row_at, s.cohort_date
        FROM lifecycle.sends AS s
        WHERE s.user_id = a.user_id AND s.campaign || '' = %(campaign)s AND s.occurrence = 'once'
        LIMIT 1 -- one look-up per row, by key: see plan_arrivals
    ) AS mine
    WHERE a.address_hash IS NULL AND mine.cohort_date = %(cohort_date)s
)
UPDATE lifecycle.sends AS s
SET state = 'held', held_reason = 'invalid_address', not_before = NULL, detail = unaddressed.address_mistake
FROM unaddressed
WHERE s.ctid = unaddressed.row_at AND (s.state IN ('planned', 'ready') OR s.held_reason = 'capped')
