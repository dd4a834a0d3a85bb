"""Accounts of this server and their bearer tokens. A token is shown once and kept as a SHA-256 hash.

Tokens are random and long, so a plain hash is enough; a slow one would cost more than the request it guards.
"""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from django.utils import timezone

from mms.models import Account, Token

CACHED_FOR = 1.0  # seconds: how long a revoked token may still work
CACHED_MOST = 1000


@dataclass(frozen=True)
class Grant:
    """What a token opens: one hosting account."""

    account_id: int
    subscription: str
    resource_group: str
    account: str


_cache: dict[str, tuple[float, Grant]] = {}


def create_account(subscription: str, resource_group: str, name: str) -> Account:
    """The account of that name; made if it is not there yet."""
    account, _ = Account.objects.get_or_create(subscription=subscription, resource_group=resource_group, name=name)
    return account


def create_token(account: Account, name: str) -> str:
    """Make a token for the account and return it in clear. `name` tells people later what it is for."""
    token = "mms_" + secrets.token_urlsafe(32)
    Token.objects.create(account=account, name=name, digest=_digest(token))
    return token


def revoke_token(token: Token) -> None:
    """Close what the token opens, in every process within CACHED_FOR seconds."""
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])


def remembered(token: str) -> Grant | None:
    """What `token` opened a moment ago; None where that is not known. Asks no database."""
    kept = _cache.get(_digest(token))
    return kept[1] if kept and kept[0] > time.monotonic() else None


def check(token: str) -> Grant | None:
    """What `token` opens; None for an unknown or revoked one. Asks the database."""
    digest = _digest(token)
    grant = _read(digest)
    if len(_cache) >= CACHED_MOST:
        _cache.clear()
    if grant:
        _cache[digest] = (time.monotonic() + CACHED_FOR, grant)
    return grant


def _read(digest: str) -> Grant | None:
    names = ("account_id", "account__subscription", "account__resource_group", "account__name")
    row = Token.objects.filter(digest=digest, revoked_at=None).values_list(*names).first()
    return Grant(*row) if row else None


def _digest(token: str) -> str:
    return sha256(token.encode(errors="replace")).hexdigest()
