"""tallystick."""
