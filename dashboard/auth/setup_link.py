"""The one-time set-up link, with which the first administrator creates their account.

The site has no default password, and the first visitor gets no special rights. The first administrator needs the link
from the terminal in which the site was started. Only a hash of its token is stored, in RUN_DIR.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q
from django.urls import reverse


def _path() -> Path:
    run_dir: Path = settings.RUN_DIR
    return run_dir / "first-sign-in"


def _has_users() -> bool:
    """Return True if there is an administrator or a local account. Accounts from the provider don't count."""
    return get_user_model().objects.filter(Q(identity=None) | Q(is_superuser=True)).exists()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def startup_message(on_terminal: bool) -> str:
    """Return instructions for the first sign-in, or "" if someone can sign in already.

    The link is shown on a terminal only. Logs are stored, and other people read them.
    """
    if on_terminal:
        hint = "Create the first administrator with this link, which works once and until the site stops:"
        link = create()
        return f"No one can sign in yet. {hint}\n  {link}" if link else ""
    revoke()
    if not _is_needed():
        return ""
    return f"No one can sign in yet. Create the first administrator:  {settings.COMMAND} create_user NAME --role admin"


def _is_needed() -> bool:
    """Return True if the site uses passwords and no user has one yet."""
    return bool(settings.PASSWORD_SIGN_IN) and not _has_users()


def create() -> str | None:
    """Create a new link, valid until it is used or the site restarts. Return None if someone can sign in already."""
    revoke()
    if not _is_needed():
        return None
    token = secrets.token_urlsafe(32)
    path = _path()
    path.touch(mode=0o600)
    path.write_text(_digest(token))
    return f"{settings.SITE_ORIGIN}{reverse('set_up', args=[token])}"


def is_valid(token: str) -> bool:
    """Return True if `token` is that of the current link."""
    try:
        expected = _path().read_text()
    except FileNotFoundError:
        return False
    return hmac.compare_digest(_digest(token), expected) and not _has_users()


def revoke() -> bool:
    """Revoke the link. True for exactly one caller, so two people with the same link create one administrator."""
    try:
        _path().unlink()
    except FileNotFoundError:
        return False
    return True
