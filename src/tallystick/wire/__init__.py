"""What providers say: one reader per wire format, sans-I/O."""
