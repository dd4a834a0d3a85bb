"""File locks, disk, processes that end with their parent, safe YAML; no Django."""
