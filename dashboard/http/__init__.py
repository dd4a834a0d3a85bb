"""Request plumbing in front of Django."""
