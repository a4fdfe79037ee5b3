-- The ledger's newest mark; NULL where it has made none, or where somebody was told today that a witness had none.
SELECT max(marked_at)
FROM lifecycle.witness_marks
WHERE NOT EXISTS (
    SELECT FROM lifecycle.alerts WHERE kind = 'witness_forgot' AND created_at > now() - interval '1 day'
)
