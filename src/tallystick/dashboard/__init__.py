"""Where people look: pages over the ledger, made on the server, live in the browser."""
