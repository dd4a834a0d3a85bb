"""Who may use which route of the API: by token alone, by the one table of permissions, answered in JSON.

A cookie opens nothing here, so a page of another site cannot use a person's session, and no CSRF token is needed.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpResponse
from django.utils.cache import patch_cache_control
from django.views.decorators.csrf import csrf_exempt

from dashboard.access import guards
from dashboard.access.permissions import Permission, missing_role_message
from dashboard.api import rate_limit
from dashboard.api.errors import ABSENT, Problem
from dashboard.audit.record import SAFE_METHODS, note_details, run_audited
from dashboard.auth import tokens
from dashboard.auth.models import ApiToken
from dashboard.http.problems import error_response
from dashboard.http.request import Request, client_ip
from deployments.models import HostingAccount

View = Callable[..., HttpResponse]
NAME = "v1_"  # how the names of the routes begin
ANY_TOKEN = "any token"  # noqa: S105 - the permission of what everybody with a token may see
JSON = "application/json"


class ApiRequest(Request):
    """A request to the JSON API, as its views see it."""

    token: ApiToken


def requires(permission: Permission, *, changes: bool = True, action: str = "") -> Callable[[View], View]:
    """Guard a view of an account, as access.requires does for pages; the view gets the HostingAccount.

    `action`: what the audit calls it, where the URL alone, without the method, does not say it.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: ApiRequest, account: str, *args: Any, **kwargs: Any) -> HttpResponse:
            return enter(request, account, permission, lambda found: view(request, found, *args, **kwargs), changes)

        guarded.permission, guarded.action = permission, action  # type: ignore[attr-defined]
        return guarded

    return decorate


def administrators(permission: Permission, *, action: str = "") -> Callable[[View], View]:
    """Guard a view of the whole site, as access.administrators does; a token for one account is not enough."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: ApiRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            def act() -> HttpResponse:
                token = request.token
                if not token.owner.is_superuser:
                    raise PermissionDenied(f"{missing_role_message(permission)}.")
                if token.account_id is not None:
                    raise PermissionDenied(f"The token “{token}” is for one account. Use a token for all accounts.")
                _check_scope(request, permission)
                try:
                    return view(request, *args, **kwargs)
                except Problem as problem:
                    return problem.response

            return run_audited(request, act)

        guarded.permission, guarded.action = permission, action  # type: ignore[attr-defined]
        return guarded

    return decorate


def operators(view: View) -> View:
    """Guard a view of what happened, as access.operators does; the view gets the accounts, None for all of them."""

    @wraps(view)
    def guarded(request: ApiRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        token = request.token
        operated = guards.operated_accounts(token.owner)
        if token.account_id is not None:
            mine = frozenset({token.account_id})
            operated = mine if operated is None else operated & mine
        if operated is not None and not operated:
            raise PermissionDenied(f"{missing_role_message(Permission.SEE_AUDIT)} in at least one account.")
        return view(request, operated, *args, **kwargs)

    guarded.permission = Permission.SEE_AUDIT  # type: ignore[attr-defined]
    return guarded


def enter(
    request: ApiRequest,
    name: str,
    permission: Permission,
    act: Callable[[HostingAccount], HttpResponse],
    changes: bool = True,
) -> HttpResponse:
    """What `act` answers for the account called `name`, if owner, account and scope of the token allow it."""
    token = request.token

    def level_in(account_id: int) -> int:
        return tokens.access_level(token, account_id)

    def covered(found: HostingAccount) -> HttpResponse:
        _check_scope(request, permission)
        try:
            return act(found)
        except Problem as problem:  # an answer like any other: nothing was changed, so nothing is recorded
            return problem.response

    return guards.call_in_account(request, name, permission, covered, level_in=level_in, changes=changes)


def _check_scope(request: ApiRequest, permission: Permission) -> None:
    """Raise PermissionDenied where a token that only reads would do something. Whatever is got, it may get."""
    token = request.token
    if request.method not in SAFE_METHODS and not tokens.allows(token, permission):
        raise PermissionDenied(f"The token “{token}” is read-only. Use a token with the scope “write”.")


def any_token(view: View) -> View:
    """Say that a view is open to everybody who has a token; it asks itself what of it they may see."""
    view.permission = ANY_TOKEN  # type: ignore[attr-defined]
    return view


def by_token(methods: dict[str, View]) -> View:
    """The view of one route: the token first, then the method, then the guard of its view."""

    @csrf_exempt
    def door(request: ApiRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response = _pass(request, methods, args, kwargs)
        except tokens.InvalidTokenError as missing:
            response = error_response(401, str(missing))
            response.headers["WWW-Authenticate"] = "Bearer"
        except rate_limit.TooFast as problem:
            response = problem.response
            response.headers["Retry-After"] = str(problem.seconds)
        except Problem as problem:
            response = problem.response
        except Http404:
            response = error_response(404, ABSENT)
        except PermissionDenied as denied:
            response = error_response(403, str(denied))
        except RequestDataTooBig:
            response = error_response(413, "The request body is larger than this site accepts.")
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(sorted(methods))
        patch_cache_control(response, no_store=True, private=True)
        return response

    door.permission = "a token"  # type: ignore[attr-defined]
    door.methods = methods  # type: ignore[attr-defined]
    return door


def _pass(request: ApiRequest, methods: dict[str, View], args: Any, kwargs: Any) -> HttpResponse:
    token = tokens.find(request.headers.get("Authorization", ""), client_ip(request))
    rate_limit.keep(token)
    request.token, request.user, request.via = token, token.owner, "api"
    method = "GET" if request.method == "HEAD" else request.method or ""
    if method not in methods:
        raise Problem(405, f"{method[:20]} isn’t allowed here. Use {' or '.join(sorted(methods))}.")
    if method != "GET" and request.content_type != JSON and (request.content_type or request.body):
        raise Problem(415, f"Send JSON, with the header “Content-Type: {JSON}”.")
    view = methods[method]
    if request.resolver_match:
        named = getattr(view, "action", "") or (request.resolver_match.url_name or "").removeprefix(NAME)
        note_details(request, action=named)
    return view(request, *args, **kwargs)
