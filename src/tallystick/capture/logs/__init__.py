"""Coding agents' logs: finding them, reading what is new, and entering it."""
