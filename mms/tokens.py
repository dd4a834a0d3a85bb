"""Accounts of this server and their bearer tokens. A token is shown once and kept as a SHA-256 hash.

Tokens are random and long, so a plain hash is enough; a slow one would cost more than the request it guards.
"""

import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from django.db.models import Q
from django.utils import timezone

from mms.models import Account, Scope, Token

PREFIX = "mms_"
DASHBOARD_PREFIX = "dash_"  # how tokens begin that open the dashboard's API, and nothing here
PATTERN = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
CACHE_SECONDS = 1.0  # seconds: how long a revoked token may still work
MAX_CACHED = 1000
USE_INTERVAL_SECONDS = 60.0  # seconds, per token and process


@dataclass(frozen=True)
class Grant:
    """What a token opens: one hosting account, to read or to do everything."""

    account_id: int
    subscription: str
    resource_group: str
    account: str
    token_id: int = 0
    scope: str = Scope.WRITE

    @property
    def may_write(self) -> bool:
        return self.scope == Scope.WRITE


_cache: dict[str, tuple[float, Grant]] = {}
_noted: dict[int, float] = {}  # token id: when a use of it may be noted again


def create_account(subscription: str, resource_group: str, name: str) -> Account:
    """The account of that name; made if it is not there yet."""
    account, _ = Account.objects.get_or_create(subscription=subscription, resource_group=resource_group, name=name)
    return account


def create_token(account: Account, name: str, scope: str = Scope.WRITE, expires_at: datetime | None = None) -> str:
    """Make a token for the account and return it in clear. `name` tells people later what it is for."""
    token = PREFIX + secrets.token_urlsafe(32)
    Token.objects.create(account=account, name=name, digest=_digest(token), scope=scope, expires_at=expires_at)
    return token


def revoke_token(token: Token) -> None:
    """Close what the token opens, in every process within CACHE_SECONDS seconds."""
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])


def cached_grant(token: str) -> Grant | None:
    """What `token` opened a moment ago; None where that is not known. Asks no database."""
    kept = _cache.get(_digest(token))
    return kept[1] if kept and kept[0] > time.monotonic() else None


def find_grant(token: str) -> Grant | None:
    """What `token` opens; None for an unknown, expired or revoked one. Asks the database."""
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
    if _noted.get(grant.token_id, 0.0) > now:
        return False
    if len(_noted) >= MAX_CACHED:
        _noted.clear()
    _noted[grant.token_id] = now + USE_INTERVAL_SECONDS
    return True


def record_use(token_id: int) -> None:
    """Store that the token was used just now, unless another process has done so within the minute."""
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=USE_INTERVAL_SECONDS))
    Token.objects.filter(stale, pk=token_id).update(last_used_at=now)


def _read(digest: str) -> Grant | None:
    names = ("account_id", "account__subscription", "account__resource_group", "account__name", "pk", "scope")
    open_still = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    row = Token.objects.filter(open_still, digest=digest, revoked_at=None).values_list(*names).first()
    return Grant(*row) if row else None


def _digest(token: str) -> str:
    return sha256(token.encode(errors="replace")).hexdigest()
