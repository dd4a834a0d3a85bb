"""Guards of the API: token, scope and permission, with errors as JSON.

Cookies are ignored, so another site can't use a person's session, and no CSRF token is needed.
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
from dashboard.api.errors import NOT_FOUND, ApiError
from dashboard.audit.record import SAFE_METHODS, note_details, run_audited
from dashboard.auth import tokens
from dashboard.auth.models import ApiToken
from dashboard.http.problems import error_response
from dashboard.http.request import Request, client_ip
from deployments.models import HostingAccount

View = Callable[..., HttpResponse]
URL_NAME_PREFIX = "v1_"
ANY_TOKEN = "any token"  # noqa: S105 - the permission of views that are open to all tokens
JSON = "application/json"


class ApiRequest(Request):
    """A request to the JSON API, as its views see it."""

    token: ApiToken


def requires(permission: Permission, *, changes: bool = True, action: str = "") -> Callable[[View], View]:
    """Guard a view of an account, as access.requires does for pages. The view gets the HostingAccount.

    `action`: the action in the audit log, if it depends on the method and not only on the URL. A view that `changes`
    nothing gets no audit entry.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: ApiRequest, account: str, *args: Any, **kwargs: Any) -> HttpResponse:
            return enter(request, account, permission, lambda row: view(request, row, *args, **kwargs), changes)

        guarded.permission, guarded.action = permission, action  # type: ignore[attr-defined]
        return guarded

    return decorate


def administrators(permission: Permission, *, action: str = "") -> Callable[[View], View]:
    """Guard a view of the whole site, as access.administrators does. Tokens for one account are rejected."""

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
                except ApiError as error:
                    return error.response

            return run_audited(request, act)

        guarded.permission, guarded.action = permission, action  # type: ignore[attr-defined]
        return guarded

    return decorate


def operators(view: View) -> View:
    """Guard a view of several accounts, as access.operators does.

    The view gets the primary keys of the accounts that the token's owner operates and the token covers; None for all.
    """

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
    """Return the response of `act` for the account called `name`, if the token and its owner have access to it."""
    token = request.token

    def level_in(account_id: int) -> int:
        return tokens.access_level(token, account_id)

    def act_within_scope(account: HostingAccount) -> HttpResponse:
        _check_scope(request, permission)
        try:
            return act(account)
        except ApiError as error:  # nothing was changed, so this must not look like a failure to the audit log
            return error.response

    return guards.call_in_account(request, name, permission, act_within_scope, level_in=level_in, changes=changes)


def _check_scope(request: ApiRequest, permission: Permission) -> None:
    """Raise PermissionDenied if the token's scope doesn't allow `permission`. Read requests are always allowed."""
    token = request.token
    if request.method not in SAFE_METHODS and not tokens.allows(token, permission):
        raise PermissionDenied(f"The token “{token}” is read-only. Use a token with the scope “write”.")


def any_token(view: View) -> View:
    """Mark a view as open to every valid token. The view itself limits what it shows."""
    view.permission = ANY_TOKEN  # type: ignore[attr-defined]
    return view


def by_token(methods: dict[str, View]) -> View:
    """Return the view of a route: it checks the token, then the method, and calls the method's guarded view."""

    @csrf_exempt
    def route_view(request: ApiRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            response = _dispatch(request, methods, args, kwargs)
        except tokens.InvalidTokenError as error:
            response = error_response(401, str(error))
            response.headers["WWW-Authenticate"] = "Bearer"
        except rate_limit.RateLimitError as error:
            response = error.response
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        except ApiError as error:
            response = error.response
        except Http404:
            response = error_response(404, NOT_FOUND)
        except PermissionDenied as error:
            response = error_response(403, str(error))
        except RequestDataTooBig:
            response = error_response(413, "The request body is larger than this site accepts.")
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(sorted(methods))
        patch_cache_control(response, no_store=True, private=True)
        return response

    route_view.permission = "a token"  # type: ignore[attr-defined]
    route_view.methods = methods  # type: ignore[attr-defined]
    return route_view


def _dispatch(request: ApiRequest, methods: dict[str, View], args: Any, kwargs: Any) -> HttpResponse:
    token = tokens.find(request.headers.get("Authorization", ""), client_ip(request))
    rate_limit.count_call(token)
    request.token, request.user, request.via = token, token.owner, "api"
    method = "GET" if request.method == "HEAD" else request.method or ""
    if method not in methods:
        raise ApiError(405, f"{method[:20]} isn’t allowed here. Use {' or '.join(sorted(methods))}.")
    if method != "GET" and request.content_type != JSON and (request.content_type or request.body):
        raise ApiError(415, f"Send JSON, with the header “Content-Type: {JSON}”.")
    view = methods[method]
    if request.resolver_match:
        url_name = (request.resolver_match.url_name or "").removeprefix(URL_NAME_PREFIX)
        note_details(request, action=getattr(view, "action", "") or url_name)
    return view(request, *args, **kwargs)
