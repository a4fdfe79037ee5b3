INSERT INTO lifecycle_witness (ledger_id, mark, position, marked_at)
VALUES (%(ledger_id)s, %(mark)s, %(position)s, %(marked_at)s)
ON CONFLICT (only_row) DO UPDATE
SET ledger_id = excluded.ledger_id, mark = excluded.mark, position = excluded.position, marked_at = excluded.marked_at
