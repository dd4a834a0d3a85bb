"""What the audit says about getting in and out. Never a password, a code or a key."""

from typing import Any

from django.http import HttpRequest

from dashboard.audit import record as audit
from dashboard.audit.record import Result
from dashboard.http.client_ip import address

PASSWORD, CODE, PROVIDER, LINK = "password", "second factor", "provider", "first link"


def signed_in(request: HttpRequest, user: Any, how: str) -> None:
    _record("sign_in", request, user.get_username(), after={"by": how}, via=_via(how))


def failed(request: HttpRequest, name: str, how: str, why: str = "") -> None:
    """Somebody was not let in; `name` is what they said they are called."""
    after = {"by": how, "why": why} if why else {"by": how}
    _record("sign_in_failed", request, name, result=Result.REFUSED, after=after, via=_via(how))


def signed_out(request: HttpRequest, user: Any) -> None:
    _record("sign_out", request, user.get_username())


def changed(action: str, request: HttpRequest, user: Any, **what: Any) -> None:
    """A person changed something about how they sign in: `password`, `second_factor_on`, `end_session` …"""
    _record(action, request, user.get_username(), target=user.get_username(), **what)


def by_command(action: str, user: Any, **what: Any) -> None:
    audit.record(action, target=user.get_username(), via="command", **what)


def _record(action: str, request: HttpRequest, actor: str, **what: Any) -> None:
    audit.record(action, actor=actor, address=address(request), **what)


def _via(how: str) -> str:
    return "provider" if how == PROVIDER else "page"
