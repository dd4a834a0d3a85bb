"""File locks, disk writes, processes that are killed with their parent, and safe YAML; no Django."""
