"""Provider reports: what a provider says that it was used for, and what it charges, read into figures."""
