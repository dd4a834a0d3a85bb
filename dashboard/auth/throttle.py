"""Login throttling: limits on failed attempts per name and per address.

An attempt is stored before anything is looked up, and deleted when it succeeds. So response and timing are the same for
known and unknown names, and parallel processes share the limits. A browser in which the user signed in before has a
cookie for their name and is counted separately, so guessing passwords for a name locks out unknown browsers, not the
user. See docs/decisions/0016-authentication.md.
"""

import hashlib
import ipaddress
import math
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from dashboard.auth.models import SignInTry
from dashboard.http.request import client_ip

DEVICE_COOKIE_DAYS = 180
SALT = "known browser"
PASSWORD, CODE = "password", "code"
CODES_PER_USER, CODE_WINDOW_MINUTES = 10, 60  # 3 of a million codes are valid: the odds are about 1 in 1400 a day


@dataclass(frozen=True)
class Throttled:
    """An attempt that was rejected without a check, with the seconds until the next one is allowed."""

    seconds: int


def start_attempt(request: HttpRequest, name: str, kind: str = PASSWORD) -> SignInTry | Throttled:
    """Store an attempt for `name`. Return it if it is allowed.

    The caller then checks the credentials, and calls `record_success` if they are correct.
    """
    window = timedelta(minutes=CODE_WINDOW_MINUTES if kind == CODE else settings.SIGN_IN_MINUTES)
    now = timezone.now()
    SignInTry.objects.filter(
        at__lt=now - 2 * timedelta(minutes=max(CODE_WINDOW_MINUTES, settings.SIGN_IN_MINUTES))
    ).delete()
    key, device = _key(name, kind), _device_id(request, name)
    attempt = SignInTry.objects.create(at=now, name_key=key, place=device or _source(request), known=bool(device))
    recent = SignInTry.objects.filter(at__gt=now - window)
    waits = [_wait_seconds(attempts, limit, window) for attempts, limit in _limits(recent, attempt, kind)]
    if not any(waits):
        return attempt
    attempt.delete()  # rejected attempts don't count, so retrying early doesn't extend the wait
    return Throttled(max(waits))


def record_success(attempt: SignInTry) -> None:
    """Delete this attempt and the failed ones of the same name and source."""
    SignInTry.objects.filter(name_key=attempt.name_key, place=attempt.place).delete()


def remember_device(request: HttpRequest, response: HttpResponse, name: str) -> None:
    """Set a cookie that identifies the browser as one in which `name` signed in. It doesn't grant access."""
    if _device_id(request, name):
        return
    response.set_cookie(
        settings.KNOWN_BROWSER_COOKIE_NAME,
        signing.dumps([_key(name, PASSWORD), secrets.token_hex(8)], salt=SALT),
        max_age=DEVICE_COOKIE_DAYS * 86400,
        path=settings.SESSION_COOKIE_PATH,
        httponly=True,
        samesite="Lax",
        secure=settings.SECURE,
    )


def _limits(recent: QuerySet[SignInTry], attempt: SignInTry, kind: str) -> list[tuple[QuerySet[SignInTry], int]]:
    of_name = recent.filter(name_key=attempt.name_key)
    if kind == CODE:  # after a correct password
        return [(of_name, CODES_PER_USER)]
    from_source = (of_name.filter(place=attempt.place), settings.SIGN_IN_TRIES)
    if attempt.known:
        return [from_source]
    unknown = recent.filter(known=False)
    return [
        from_source,
        (unknown.filter(name_key=attempt.name_key), settings.SIGN_IN_TRIES_PER_NAME),
        (unknown.filter(place=attempt.place), settings.SIGN_IN_TRIES_PER_ADDRESS),
    ]


def _wait_seconds(attempts: QuerySet[SignInTry], limit: int, window: timedelta) -> int:
    """Return the seconds until another attempt is allowed, 0 for now. `attempts` includes the current one."""
    newest = list(attempts.order_by("-at", "-pk").values_list("at", flat=True)[: limit + 1])
    if len(newest) <= limit:
        return 0
    return max(1, math.ceil((newest[-1] + window - timezone.now()).total_seconds()))


def _key(name: str, kind: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return salted_hmac(f"tries at a {kind}", plain, algorithm="sha256").hexdigest()


def _source(request: HttpRequest) -> str:
    """Return the client's address. For IPv6 the /64 network, because one computer can use all of its addresses."""
    try:
        address = ipaddress.ip_address(client_ip(request))
    except ValueError:
        return "unknown"
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


def _device_id(request: HttpRequest, name: str) -> str:
    """Return the identifier of the browser from its cookie for this name, or "" if it has none."""
    cookie = request.COOKIES.get(settings.KNOWN_BROWSER_COOKIE_NAME, "")
    try:
        key, browser = signing.loads(cookie, salt=SALT, max_age=timedelta(days=DEVICE_COOKIE_DAYS))
    except (signing.BadSignature, ValueError, TypeError):
        return ""
    return "browser " + hashlib.sha256(browser.encode()).hexdigest() if key == _key(name, PASSWORD) else ""
