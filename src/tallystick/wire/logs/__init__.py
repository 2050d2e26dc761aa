"""What coding agents write into their logs: one sans-I/O reader per tool, from lines to calls."""
