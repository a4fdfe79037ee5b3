INSERT INTO lifecycle.witness_marks DEFAULT VALUES
RETURNING (SELECT ledger_id FROM lifecycle.installation), mark, position, marked_at
