"""One operation, from request to end."""
