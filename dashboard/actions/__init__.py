"""Actions that pages and the JSON API share: look up, check, store, delete, and note it for the audit log."""
