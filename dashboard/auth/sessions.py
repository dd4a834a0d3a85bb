"""Sessions that end: after a time without use, after a time in any case, and when somebody ends them.

`SESSION_ENGINE` names this module. The row of a session says when it ends, so every reader of sessions (pages, the live
stream, uploads) keeps to it. Being used is noted every few minutes only: a page must not cost a write.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.crypto import salted_hmac

from dashboard.http.client_ip import address
from dashboard.models import OpenSession

STARTED, ADDRESS, BROWSER = "_started", "_address", "_browser"  # what a session says of itself
BEFORE_SIGN_IN = timedelta(minutes=20)  # for the provider's page, or the code of a second factor
NOTED_EVERY = timedelta(minutes=5)
BY_ITSELF = "Background"  # header of requests that a page makes while nobody touches it
log = logging.getLogger(__name__)


class SessionStore(DatabaseSessions):
    """Django's sessions in the database, in a table that knows whose they are."""

    row: OpenSession | None = None  # as it was loaded

    @classmethod
    def get_model_class(cls) -> type[OpenSession]:
        return OpenSession

    def _get_session_from_db(self) -> OpenSession | None:
        self.row = super()._get_session_from_db()  # type: ignore[misc]
        return self.row

    def create_model_instance(self, data: dict[str, Any]) -> OpenSession:
        row: OpenSession = super().create_model_instance(data)  # type: ignore[assignment]
        now = timezone.now()
        row.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        row.started_at = datetime.fromtimestamp(data.get(STARTED, now.timestamp()), UTC)
        row.seen_at = now
        row.address, row.browser = data.get(ADDRESS, ""), data.get(BROWSER, "")
        row.expire_date = _end(row)
        return row


def begin(request: HttpRequest) -> None:
    """Note in the session of somebody who has just signed in since when and from where."""
    request.session[STARTED] = timezone.now().timestamp()
    request.session[ADDRESS] = address(request)
    request.session[BROWSER] = name_of_browser(request.headers.get("User-Agent", ""))


def of(user: Any) -> list[OpenSession]:
    """The sessions in which `user` is signed in now, the one used last first."""
    return list(OpenSession.objects.filter(user_id=user.pk, expire_date__gt=timezone.now()))


def end_all(user: Any, but: str | None = None) -> int:
    """End the sessions of `user`, except the one with the key `but`; how many there were."""
    return OpenSession.objects.filter(user_id=user.pk).exclude(session_key=but or "").delete()[0]


def public_id(session: OpenSession) -> str:
    """What stands for a session in pages: its key would let anybody in."""
    return salted_hmac("open session", session.session_key, algorithm="sha256").hexdigest()[:20]


def name_of_browser(agent: str) -> str:
    """`Firefox on Linux`, as far as the User-Agent can be believed."""
    browsers = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
    systems = {"Windows": "Windows", "Android": "Android", "iPhone": "iOS", "iPad": "iOS", "Mac OS": "macOS"}
    browser = next((name for mark, name in browsers.items() if mark in agent), "A browser")
    system = next((name for mark, name in {**systems, "Linux": "Linux"}.items() if mark in agent), "")
    return f"{browser} on {system}" if system else browser


def _end(row: OpenSession) -> datetime:
    if row.user_id is None:
        return row.seen_at + BEFORE_SIGN_IN
    longest = row.started_at + timedelta(hours=settings.SESSION_HOURS)
    return min(longest, row.seen_at + timedelta(minutes=settings.SESSION_IDLE_MINUTES))


class Middleware(SessionMiddleware):
    """Django's, which also notes now and then that a session is used."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
        row = getattr(request.session, "row", None)
        answer: HttpResponse = super().process_response(request, response)  # type: ignore[arg-type]
        if row and row.user_id and not request.session.modified and BY_ITSELF not in request.headers:
            _note_use(row)
        return answer


def _note_use(row: OpenSession) -> None:
    now = timezone.now()
    if now - row.seen_at < min(NOTED_EVERY, timedelta(minutes=settings.SESSION_IDLE_MINUTES) / 4):
        return
    row.seen_at = now
    try:
        # Not saved: that would bring back a session that was ended meanwhile.
        OpenSession.objects.filter(pk=row.pk).update(seen_at=now, expire_date=_end(row))
    except Error as error:
        log.warning("couldn't record the use of a session: %s", error)
