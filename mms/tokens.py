"""Accounts of this server and their bearer tokens. A token is shown once and stored as a SHA-256 hash.

Tokens are long and random, so a plain hash is enough; a slow one would take longer than the request itself.
"""

import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from mms import audit
from mms.models import Account, Scope, Token

PREFIX = "mms_"
DASHBOARD_PREFIX = "dash_"  # prefix of tokens for the dashboard's API, which aren't valid here
PATTERN = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
CACHE_SECONDS = 1.0  # how long a revoked token may still work
MAX_CACHED = 1000
USE_INTERVAL_SECONDS = 60.0  # between updates of last_used_at, per token and process


@dataclass(frozen=True)
class Grant:
    """Access that a token grants: to one hosting account, with its scope."""

    account_id: int
    subscription: str
    resource_group: str
    account: str
    token_id: int = 0
    scope: str = Scope.WRITE
    token_name: str = ""

    @property
    def may_write(self) -> bool:
        """True if the scope allows more than reading."""
        return self.scope == Scope.WRITE


_cache: dict[str, tuple[float, Grant]] = {}
_use_due_at: dict[int, float] = {}  # monotonic time of the next update, by token ID


def create_account(subscription: str, resource_group: str, name: str) -> Account:
    """Return the account with these names, created if it doesn't exist."""
    account, _ = Account.objects.get_or_create(subscription=subscription, resource_group=resource_group, name=name)
    return account


@transaction.atomic
def create_token(
    account: Account,
    name: str,
    scope: str = Scope.WRITE,
    expires_at: datetime | None = None,
    via: str = audit.COMMAND,
) -> str:
    """Create a token for the account and return it in plain text.

    `name` describes its purpose. `via` is the interface in the audit log.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    row = Token.objects.create(account=account, name=name, digest=_digest(token), scope=scope, expires_at=expires_at)
    audit.record_token_change("create_token", row, via)
    return token


@transaction.atomic
def revoke_token(token: Token, via: str = audit.COMMAND) -> None:
    """Revoke the token, in all processes within CACHE_SECONDS. `via` is the interface in the audit log."""
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])
    audit.record_token_change("revoke_token", token, via)


def cached_grant(token: str) -> Grant | None:
    """Return the grant of a token that was used within CACHE_SECONDS, else None. Doesn't use the database."""
    expires_at, grant = _cache.get(_digest(token), (0.0, None))
    return grant if expires_at > time.monotonic() else None


def find_grant(token: str) -> Grant | None:
    """Return the grant of `token` from the database; None if it is unknown, expired or revoked."""
    digest = _digest(token)
    grant = _read(digest)
    if len(_cache) >= MAX_CACHED:
        _cache.clear()
    if grant:
        _cache[digest] = (time.monotonic() + CACHE_SECONDS, grant)
    return grant


def is_use_due(grant: Grant) -> bool:
    """Return True once in USE_INTERVAL_SECONDS per token and process: when its last use should be stored.

    The result of storing doesn't matter, so that a full or busy database isn't written to on every request.
    """
    now = time.monotonic()
    if _use_due_at.get(grant.token_id, 0.0) > now:
        return False
    if len(_use_due_at) >= MAX_CACHED:
        _use_due_at.clear()
    _use_due_at[grant.token_id] = now + USE_INTERVAL_SECONDS
    return True


def record_use(token_id: int) -> None:
    """Store that the token was used now, unless another process did within USE_INTERVAL_SECONDS."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=USE_INTERVAL_SECONDS))
    Token.objects.filter(stale, pk=token_id).update(last_used_at=now)


def _read(digest: str) -> Grant | None:
    names = ("account_id", "account__subscription", "account__resource_group", "account__name", "pk", "scope", "name")
    not_expired = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    row = Token.objects.filter(not_expired, digest=digest, revoked_at=None).values_list(*names).first()
    return Grant(*row) if row else None


def _digest(token: str) -> str:
    return sha256(token.encode(errors="replace")).hexdigest()
