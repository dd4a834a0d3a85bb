"""The user or API token of a plain ASGI request.

Queries run in a thread, and no database connection stays open after them.
"""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from asgiref.typing import HTTPScope
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser, User
from django.db import close_old_connections
from django.http import HttpRequest

from dashboard.auth import tokens
from dashboard.auth.models import ApiToken
from dashboard.http.asgi import header

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


async def call_with_database(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a function that uses the ORM in Django's thread. Closes stale connections before and after."""

    def call() -> Result:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(call)()


def find_user(scope: HTTPScope) -> User | AnonymousUser:
    """Return the user of the request's session. Queries the database."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(_session_key(scope))
    return get_user(request)


def find_token(scope: HTTPScope) -> ApiToken:
    """Return the API token of the request. Queries the database. Raises tokens.InvalidTokenError."""
    client = scope.get("client") or ("",)
    return tokens.find(header(scope, b"authorization"), str(client[0]))


def _session_key(scope: HTTPScope) -> str | None:
    try:
        cookies = SimpleCookie(header(scope, b"cookie"))
    except CookieError:
        return None
    cookie = cookies.get(settings.SESSION_COOKIE_NAME)
    return cookie.value if cookie else None
