"""File locks, disk writes, sockets, removal of folders, and limited child processes; no Django."""
