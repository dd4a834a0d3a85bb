"""The one-time link that makes the first administrator.

There is no default password, and the first visitor is nobody special: who makes the first administrator has read the
link on the terminal where the site was started. Only a hash of its token is kept, in RUN_DIR.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q
from django.urls import reverse


def _file() -> Path:
    path: Path = settings.RUN_DIR / "first-sign-in"
    return path


def _somebody() -> bool:
    """Whether anybody can sign in who was made here, or is an administrator; a provider's people come by themselves."""
    return get_user_model().objects.filter(Q(identity=None) | Q(is_superuser=True)).exists()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def invitation(on_terminal: bool) -> str:
    """What the person who started the site is told about signing in; "" when there is somebody who can.

    Other places than a terminal have other readers and keep what they read: they are not given the link.
    """
    link = offer()
    if link is None:
        return ""
    if on_terminal:
        says = "No one can sign in yet. This link creates the first administrator, once, until the site stops:"
        return f"{says}\n  {link}"
    withdraw()
    return f"No one can sign in yet. Create the first administrator:  {settings.COMMAND} create_user NAME --role admin"


def offer() -> str | None:
    """A new link, valid until it is used or the site starts again; None when there is somebody who can sign in."""
    withdraw()
    if not settings.PASSWORD_SIGN_IN or _somebody():
        return None
    token = secrets.token_urlsafe(32)
    path = _file()
    path.touch(mode=0o600)
    path.write_text(_digest(token))
    return f"{settings.SITE_URL}{reverse('set_up', args=[token])}"


def is_valid(token: str) -> bool:
    """Whether `token` is that of the current offer."""
    try:
        expected = _file().read_text()
    except FileNotFoundError:
        return False
    return hmac.compare_digest(_digest(token), expected) and not _somebody()


def withdraw() -> bool:
    """End the offer. True for exactly one caller: two people with the same link make one administrator."""
    try:
        _file().unlink()
    except FileNotFoundError:
        return False
    return True
