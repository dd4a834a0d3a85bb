"""Who sends a request, for the parts that are plain ASGI: the session cookie or the token, the host and the origin.

The database is asked in a thread, and no connection of it outlives the question.
"""

from collections.abc import Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import close_old_connections
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

from dashboard.auth import tokens
from dashboard.models import ApiToken

Scope = MutableMapping[str, Any]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def header(scope: Scope, name: bytes) -> str:
    """The first header called `name` (lower case), "" when there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def ask_database(
    question: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Run `question(…)`, which uses the ORM, in Django's thread; stale connections are closed around it."""

    def ask() -> Result:
        close_old_connections()
        try:
            return question(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(ask)()


def find_user(scope: Scope) -> AbstractBaseUser | AnonymousUser:
    """The user whose session the request carries. Asks the database."""
    request = HttpRequest()
    request.session = _sessions().SessionStore(_session_key(scope))
    return get_user(request)


def find_token(scope: Scope) -> ApiToken:
    """The token of the JSON API that the request carries. Asks the database; raises tokens.NoToken."""
    client = scope.get("client") or ("",)
    return tokens.find(header(scope, b"authorization"), str(client[0]))


def _sessions() -> Any:
    return import_module(settings.SESSION_ENGINE)


def _session_key(scope: Scope) -> str | None:
    try:
        cookies = SimpleCookie(header(scope, b"cookie"))
    except CookieError:
        return None
    found = cookies.get(settings.SESSION_COOKIE_NAME)
    return found.value if found else None


def is_known_host(scope: Scope) -> bool:
    """Whether the request names a host that this site answers to (ALLOWED_HOSTS)."""
    domain, _ = split_domain_port(header(scope, b"host"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_same_origin(scope: Scope) -> bool:
    """Whether a page of this very site sent the request, as the browser says. Without a word from it: no."""
    if site := header(scope, b"sec-fetch-site"):
        return site == "same-origin"
    origin = header(scope, b"origin") or header(scope, b"referer")
    if not origin:
        return False
    found = urlsplit(origin)
    return found.netloc == header(scope, b"host") or f"{found.scheme}://{found.netloc}" in settings.CSRF_TRUSTED_ORIGINS
