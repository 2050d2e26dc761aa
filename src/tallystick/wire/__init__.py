"""What providers say: one reader per wire format, sans-I/O. `wire.usage` is the front door."""
