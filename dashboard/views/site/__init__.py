"""Pages about the whole site: users, audit log, system status."""
