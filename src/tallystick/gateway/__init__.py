"""The gateway: one base URL for every client in every language; each call is metered, limited, entered."""
