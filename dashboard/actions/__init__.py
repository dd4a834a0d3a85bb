"""What a page and the JSON API both do, written once: look up, check, store, delete, and note it for the audit log."""
