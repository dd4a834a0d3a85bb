"""Audit entries about sign-in and sign-out. They never contain a password, a code or a key."""

from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest

from dashboard.audit.record import Result, record_entry
from dashboard.http.request import client_ip

# How someone signed in.
PASSWORD, CODE, PROVIDER, LINK = "password", "second factor", "provider", "first link"


def record_sign_in(request: HttpRequest, user: User, method: str) -> None:
    """Record that the user signed in."""
    _record("sign_in", request, user.get_username(), after={"by": method}, via=_interface(method))


def record_failed_sign_in(request: HttpRequest, name: str, method: str, reason: str = "") -> None:
    """Record a failed sign-in with the name that was entered."""
    after = {"by": method, "why": reason} if reason else {"by": method}
    _record("sign_in_failed", request, name, result=Result.REFUSED, after=after, via=_interface(method))


def record_sign_out(request: HttpRequest, user: User) -> None:
    """Record that the user signed out."""
    _record("sign_out", request, user.get_username())


def record_change(action: str, request: HttpRequest, user: User, **details: Any) -> None:
    """Record a change to how the user signs in, such as `password`, `second_factor_on` or `end_session`."""
    _record(action, request, user.get_username(), target=user.get_username(), **details)


def record_command(action: str, user: User, **details: Any) -> None:
    """Record a change to the user by a management command."""
    record_entry(action, target=user.get_username(), via="command", **details)


def _record(action: str, request: HttpRequest, actor: str, **details: Any) -> None:
    record_entry(action, actor=actor, address=client_ip(request), **details)


def _interface(method: str) -> str:
    return "provider" if method == PROVIDER else "page"
