"""Guessing is slow: how many tries at a name, and from an address, are let through in a while.

A try is written down before anything is looked up, and forgotten when it succeeds; so what is answered, and after how
long, is the same for known and unknown names, and processes that work side by side cannot let more through. A browser
in which somebody was signed in before carries a mark for their name and is counted apart: a stranger who keeps guessing
at a name locks out strangers, not its owner. See docs/decisions/0016-authentication.md.
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

from dashboard.http.client_ip import address
from dashboard.models import SignInTry

MARK_DAYS = 180
SALT = "known browser"
PASSWORD, CODE = "password", "code"
CODES_PER_PERSON, CODES_MINUTES = 10, 60  # a million codes, three of which fit: about 1 in 1400 a day


@dataclass(frozen=True)
class Refusal:
    """A try that was not let through, and after how many seconds one will be."""

    seconds: int


def begin(request: HttpRequest, name: str, what: str = PASSWORD) -> SignInTry | Refusal:
    """Write down a try at `name`. Whoever gets a SignInTry may go on, and says `succeeded` if it did."""
    window = timedelta(minutes=CODES_MINUTES if what == CODE else settings.SIGN_IN_MINUTES)
    now = timezone.now()
    SignInTry.objects.filter(at__lt=now - 2 * timedelta(minutes=max(CODES_MINUTES, settings.SIGN_IN_MINUTES))).delete()
    key, mark = _key(name, what), _mark(request, name)
    this = SignInTry.objects.create(at=now, name_key=key, place=mark or _place(request), known=bool(mark))
    recent = SignInTry.objects.filter(at__gt=now - window)
    waits = [_wait(tries, most, window) for tries, most in _limits(recent, this, what)]
    if not any(waits):
        return this
    this.delete()  # tries that were not let through do not count: waiting helps
    return Refusal(max(waits))


def succeeded(this: SignInTry) -> None:
    """Forget the tries that led here."""
    SignInTry.objects.filter(name_key=this.name_key, place=this.place).delete()


def remember(request: HttpRequest, response: HttpResponse, name: str) -> None:
    """Mark the browser as one in which `name` was signed in. The mark lets nobody in."""
    if _mark(request, name):
        return
    response.set_cookie(
        settings.KNOWN_BROWSER_COOKIE_NAME,
        signing.dumps([_key(name, PASSWORD), secrets.token_hex(8)], salt=SALT),
        max_age=MARK_DAYS * 86400,
        httponly=True,
        samesite="Lax",
        secure=settings.SECURE,
    )


def _limits(recent: QuerySet[SignInTry], this: SignInTry, what: str) -> list[tuple[QuerySet[SignInTry], int]]:
    of_name = recent.filter(name_key=this.name_key)
    if what == CODE:  # whoever gets here knows the password
        return [(of_name, CODES_PER_PERSON)]
    here = (of_name.filter(place=this.place), settings.SIGN_IN_TRIES)
    if this.known:
        return [here]
    strangers = recent.filter(known=False)
    return [
        here,
        (strangers.filter(name_key=this.name_key), settings.SIGN_IN_TRIES_PER_NAME),
        (strangers.filter(place=this.place), settings.SIGN_IN_TRIES_PER_ADDRESS),
    ]


def _wait(tries: QuerySet[SignInTry], most: int, window: timedelta) -> int:
    """Seconds until one more of these is let through; 0 now. The try itself is one of them."""
    newest = list(tries.order_by("-at", "-pk").values_list("at", flat=True)[: most + 1])
    if len(newest) <= most:
        return 0
    return max(1, math.ceil((newest[-1] + window - timezone.now()).total_seconds()))


def _key(name: str, what: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return salted_hmac(f"tries at a {what}", plain, algorithm="sha256").hexdigest()


def _place(request: HttpRequest) -> str:
    """The address; of IPv6 the network of 64 bits, for one computer has all of it."""
    try:
        found = ipaddress.ip_address(address(request))
    except ValueError:
        return "unknown"
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def _mark(request: HttpRequest, name: str) -> str:
    """The browser by its mark for this name; "" where it has none."""
    cookie = request.COOKIES.get(settings.KNOWN_BROWSER_COOKIE_NAME, "")
    try:
        key, browser = signing.loads(cookie, salt=SALT, max_age=timedelta(days=MARK_DAYS))
    except (signing.BadSignature, ValueError, TypeError):
        return ""
    return "browser " + hashlib.sha256(browser.encode()).hexdigest() if key == _key(name, PASSWORD) else ""
