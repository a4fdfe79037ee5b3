CREATE TABLE IF NOT EXISTS lifecycle_witness (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    ledger_id uuid NOT NULL,
    mark uuid NOT NULL,
    position bigint NOT NULL,
    marked_at timestamptz NOT NULL
)
