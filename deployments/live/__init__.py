"""Live state in Redis."""
