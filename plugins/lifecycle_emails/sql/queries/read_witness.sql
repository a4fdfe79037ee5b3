SELECT ledger_id, mark, position, marked_at FROM lifecycle_witness
