"""Sessions that expire after inactivity and after a maximum lifetime, and can be listed and ended.

`SESSION_ENGINE` names this module. The row of a session stores its expiry, so it applies to every reader of sessions:
pages, the live stream and uploads. Use is recorded only every few minutes, so that a page view rarely needs a write.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.crypto import salted_hmac

from dashboard.auth.models import OpenSession
from dashboard.http.request import client_ip

STARTED, ADDRESS, BROWSER = "_started", "_address", "_browser"  # session keys
SIGN_IN_LIFETIME = timedelta(minutes=20)  # of a session before sign-in: for the provider's page or the second factor
USE_INTERVAL = timedelta(minutes=5)
BACKGROUND_HEADER = "Background"  # on requests that a page sends without user activity
log = logging.getLogger(__name__)


class SessionStore(DatabaseSessions):
    """Django's database sessions, in a table that stores their owners."""

    row: OpenSession | None = None  # as loaded

    @classmethod
    def get_model_class(cls) -> type[OpenSession]:
        return OpenSession

    def _get_session_from_db(self) -> OpenSession | None:
        # The stubs lack this method.
        self.row = super()._get_session_from_db()  # type: ignore[misc]
        return self.row

    def create_model_instance(self, data: dict[str, Any]) -> OpenSession:
        row = super().create_model_instance(data)
        assert isinstance(row, OpenSession)  # noqa: S101
        now = timezone.now()
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        row.started_at = datetime.fromtimestamp(data.get(STARTED, now.timestamp()), UTC)
        row.seen_at = now
        row.address, row.browser = data.get(ADDRESS, ""), data.get(BROWSER, "")
        row.expire_date = _expiry(row)
        return row


def start(request: HttpRequest) -> None:
    """Store in a new session when and from where the user signed in."""
    request.session[STARTED] = timezone.now().timestamp()
    request.session[ADDRESS] = client_ip(request)
    request.session[BROWSER] = browser_name(request.headers.get("User-Agent", ""))


def open_sessions(user: User) -> list[OpenSession]:
    """Return the sessions in which the user is signed in, the most recently used first."""
    return list(OpenSession.objects.filter(user_id=user.pk, expire_date__gt=timezone.now()))


def end_all(user: User, keep: str | None = None) -> int:
    """End the user's sessions except the one with the key `keep`. Return the number of ended sessions."""
    return OpenSession.objects.filter(user_id=user.pk).exclude(session_key=keep or "").delete()[0]


def public_id(session: OpenSession) -> str:
    """Return an identifier of the session for pages. Its key must stay secret because it grants access."""
    return salted_hmac("open session", session.session_key, algorithm="sha256").hexdigest()[:20]


def browser_name(agent: str) -> str:
    """Return a name such as `Firefox on Linux` for a User-Agent header."""
    browsers = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {"Windows": "Windows", "Android": "Android", "iPhone": "iOS", "iPad": "iOS", "Mac OS": "macOS"}
    browser = next((name for token, name in browsers.items() if token in agent), "A browser")
    system = next((name for token, name in {**systems, "Linux": "Linux"}.items() if token in agent), "")
    return f"{browser} on {system}" if system else browser


def _expiry(row: OpenSession) -> datetime:
    if row.user_id is None:
        return row.seen_at + SIGN_IN_LIFETIME
    longest = row.started_at + timedelta(hours=settings.SESSION_HOURS)
    return min(longest, row.seen_at + timedelta(minutes=settings.SESSION_IDLE_MINUTES))


class SessionUseMiddleware(SessionMiddleware):
    """Django's session middleware, which also records every few minutes that a session is used."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
        row = getattr(request.session, "row", None)
        # The stubs require an HttpResponse, but the base class works with any response.
        processed: HttpResponse = super().process_response(request, response)  # type: ignore[arg-type]
        if row and row.user_id and not request.session.modified and BACKGROUND_HEADER not in request.headers:
            _record_use(row)
        return processed


def _record_use(row: OpenSession) -> None:
    now = timezone.now()
    if now - row.seen_at < min(USE_INTERVAL, timedelta(minutes=settings.SESSION_IDLE_MINUTES) / 4):
        return
    row.seen_at = now
    try:
        # save() would recreate a session that was ended in the meantime.
        OpenSession.objects.filter(pk=row.pk).update(seen_at=now, expire_date=_expiry(row))
    except Error as error:
        log.warning("Couldn't record the use of a session: %s", error)
