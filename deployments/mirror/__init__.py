"""The mirror: local copies of each server's lists, and their refresh."""
