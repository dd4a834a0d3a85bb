"""Scoring keys. Each service has two, so that callers can switch to one while the other is replaced."""

import secrets


def new_key() -> str:
    """Return a new random key."""
    return secrets.token_urlsafe(32)
