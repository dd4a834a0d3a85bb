"""Forms for users, tokens and the audit log."""
