"""File locks, disk writes, sockets, removal of folders, limited child processes, and safe YAML; no Django."""
