"""What things cost: the bundled rate catalogue, its builder, and reviewed overrides."""
