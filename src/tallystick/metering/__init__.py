"""The one path of a call: read it, price it, hold for it, settle it."""
