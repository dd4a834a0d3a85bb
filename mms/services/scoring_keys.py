"""The two scoring keys of a service. A caller can move from one to the other while the first is replaced."""

import secrets


def new_key() -> str:
    return secrets.token_urlsafe(32)
