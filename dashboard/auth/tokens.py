"""API tokens: bearer tokens of the JSON API. Tokens of the MMS are separate.

A token is long and random, so a plain hash is enough. A slow hash would cost more than the request.
"""

import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

from django.contrib.auth.models import User
from django.db import Error
from django.db.models import Q
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from dashboard.access import guards
from dashboard.access.permissions import Permission
from dashboard.auth.models import ApiToken

PREFIX = "dash_"
MMS_PREFIX = "mms_"
LIFETIMES_DAYS = (7, 30, 90, 365)
USE_INTERVAL = timedelta(minutes=1)
HINT = "Create one on the page “API tokens” (/tokens/)."


class InvalidTokenError(Exception):
    """The request has no valid token. The message is shown to the client."""


def create(owner: User, name: str, scope: str, account_id: int | None, days: int) -> tuple[ApiToken, str]:
    """Create a token. Return it with its text, which isn't stored."""
    text = PREFIX + secrets.token_urlsafe(32)
    expires = timezone.now() + timedelta(days=min(days, max(LIFETIMES_DAYS)))
    row = ApiToken.objects.create(
        owner=owner, name=name, digest=_digest(text), scope=scope, account_id=account_id, expires_at=expires
    )
    return row, text


def revoke(token: ApiToken) -> None:
    """Revoke the token. Revoking it again keeps the first date."""
    token.revoked_at = token.revoked_at or timezone.now()
    token.save(update_fields=["revoked_at"])


@sensitive_variables("authorization", "text")
def find(authorization: str, address: str) -> ApiToken:
    """Return the token in an Authorization header with its owner, and record its use. Raises InvalidTokenError."""
    scheme, _, text = authorization.strip().partition(" ")
    text = text.strip()
    if not authorization.strip():
        raise InvalidTokenError(f"This request has no token. Send the header “Authorization: Bearer {PREFIX}…”. {HINT}")
    if scheme.lower() != "bearer" or not text:
        raise InvalidTokenError(f"The Authorization header isn’t valid. Send “Authorization: Bearer {PREFIX}…”.")
    if text.startswith(MMS_PREFIX):
        raise InvalidTokenError(f"This is an MMS token. It works for /api, not for the dashboard. {HINT}")
    token = ApiToken.objects.select_related("owner").filter(digest=_digest(text)).first()
    if token is None:
        raise InvalidTokenError(f"This token doesn’t exist. {HINT}")
    now = timezone.now()
    if reason := token.inactive_reason(now):
        raise InvalidTokenError(f"This token {reason}. {HINT}")
    _record_use(token, now, address)
    return token


def access_level(token: ApiToken, account_id: int) -> int:
    """Return the token's access level in the account: its owner's, or 0 if the token is for another account."""
    return guards.access_level(token.owner, account_id) if token.account_id in (None, account_id) else 0


def can_write(token: ApiToken) -> bool:
    """Return True unless the token is read-only."""
    return token.scope == ApiToken.Scope.WRITE


def allows(token: ApiToken, permission: Permission) -> bool:
    """Return True if the token's scope allows `permission`. Read-only tokens allow only viewing."""
    return permission == Permission.SEE or can_write(token)


def _record_use(token: ApiToken, now: datetime, address: str) -> None:
    """Record the use at most once a minute. Reading must work even if the database can't write at the moment."""
    if token.last_used_at and now - token.last_used_at < USE_INTERVAL:
        return
    old = Q(last_used_at=None) | Q(last_used_at__lte=now - USE_INTERVAL)
    with suppress(Error):
        ApiToken.objects.filter(old, pk=token.pk).update(last_used_at=now, last_used_from=address[:64])


def _digest(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()
