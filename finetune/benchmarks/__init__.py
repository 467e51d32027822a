"""What things cost: `benchmark`. Nothing imports this room."""
