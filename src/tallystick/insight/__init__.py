"""Read-only questions to the ledger."""
