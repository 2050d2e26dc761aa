"""Readers of the places rates come from. Each turns its source into rows; none decides between sources."""
