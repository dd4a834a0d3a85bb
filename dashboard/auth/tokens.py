"""Bearer tokens of the JSON API: made, found by what a request carries, revoked. The tokens of the MMS are others.

A token is random and long, so a plain hash is enough; a slow one would cost more than the request it guards.
"""

import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.db import Error
from django.db.models import Q
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from dashboard.access import guards as access
from dashboard.access.permissions import Permission
from dashboard.models import ApiToken

PREFIX = "dash_"
OF_THE_MMS = "mms_"
DAYS = (7, 30, 90, 365)  # a token lives that long, and no longer
NOTE_EVERY = timedelta(minutes=1)
WHERE = "Create one on the page “API tokens” (/tokens/)."


class NoToken(Exception):
    """The request carries no token that opens anything. Its text is for whoever reads the answer."""


def create(owner: Any, name: str, scope: str, account_id: int | None, days: int) -> tuple[ApiToken, str]:
    """A new token and its text, which is kept nowhere."""
    text = PREFIX + secrets.token_urlsafe(32)
    expires = timezone.now() + timedelta(days=min(days, max(DAYS)))
    row = ApiToken.objects.create(
        owner=owner, name=name, digest=_digest(text), scope=scope, account_id=account_id, expires_at=expires
    )
    return row, text


def revoke(token: ApiToken) -> None:
    """From now on it opens nothing; the first time counts."""
    token.revoked_at = token.revoked_at or timezone.now()
    token.save(update_fields=["revoked_at"])


@sensitive_variables("authorization", "text")
def find(authorization: str, address: str) -> ApiToken:
    """The token that the Authorization header carries, with its owner; its use is noted. Raises NoToken."""
    scheme, _, text = authorization.strip().partition(" ")
    text = text.strip()
    if not authorization.strip():
        raise NoToken(f"This request has no token. Send the header “Authorization: Bearer {PREFIX}…”. {WHERE}")
    if scheme.lower() != "bearer" or not text:
        raise NoToken(f"The Authorization header isn’t valid. Send “Authorization: Bearer {PREFIX}…”.")
    if text.startswith(OF_THE_MMS):
        raise NoToken(f"This is an MMS token. It works for /api, not for the dashboard. {WHERE}")
    token = ApiToken.objects.select_related("owner").filter(digest=_digest(text)).first()
    if token is None:
        raise NoToken(f"This token doesn’t exist. {WHERE}")
    now = timezone.now()
    if reason := token.why_dead(now):
        raise NoToken(f"This token {reason}. {WHERE}")
    _note_use(token, now, address)
    return token


def rank(token: ApiToken, account_id: int) -> int:
    """How much the token opens in the account: what its owner may do there, or nothing if it is for another."""
    return access.rank(token.owner, account_id) if token.account_id in (None, account_id) else 0


def may_write(token: ApiToken) -> bool:
    return token.scope == ApiToken.Scope.WRITE


def covers(token: ApiToken, permission: Permission) -> bool:
    """Whether the scope of the token reaches that far: a reading one sees, and does nothing."""
    return permission == Permission.SEE or may_write(token)


def _note_use(token: ApiToken, now: datetime, address: str) -> None:
    """At most once a minute. A database that cannot write just now is no reason to refuse a reader."""
    if token.last_used_at and now - token.last_used_at < NOTE_EVERY:
        return
    old = Q(last_used_at=None) | Q(last_used_at__lte=now - NOTE_EVERY)
    with suppress(Error):
        ApiToken.objects.filter(old, pk=token.pk).update(last_used_at=now, last_used_from=address[:64])


def _digest(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()
