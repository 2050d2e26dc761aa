"""What happened: entries, corrections, and the ledgers that keep them."""
