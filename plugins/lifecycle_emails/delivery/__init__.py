"""Everything that touches an SMTP server: one dialogue, and what its replies mean for the ledger."""
