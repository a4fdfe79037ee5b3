-- Whether the ledger remembers a witness's mark, or a person has since released what it forgot. And its newest mark.
SELECT
    EXISTS (SELECT FROM lifecycle.witness_marks WHERE mark = %(mark)s)
    AND EXISTS (SELECT FROM lifecycle.installation WHERE ledger_id = %(ledger_id)s)
    OR EXISTS (SELECT FROM lifecycle.restores WHERE released_at > %(marked_at)s),
    (SELECT max(marked_at) FROM lifecycle.witness_marks)
