"""View guards: each view declares which users may use it, and all others are denied.

Each view has exactly one of `requires(permission)`, `administrators(permission)`, `operators`, `signed_in` and
`anyone`. A test walks all URLs and fails for a view without one. For the permissions of each role, see permissions.py.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRedirect

from dashboard.access import page_position
from dashboard.access.form_keys import respond_once
from dashboard.access.models import Membership, Role
from dashboard.access.permissions import (
    ACCESS_LEVELS,
    ADMIN_LEVEL,
    Permission,
    PermissionSet,
    missing_role_message,
    required_level,
    role_label,
)
from dashboard.audit.record import run_audited
from dashboard.http.request import Request
from deployments.models import HostingAccount

View = Callable[..., HttpResponse]
AnyView = TypeVar("AnyView", bound=Callable[..., HttpResponseBase])


def access_level(user: User, account_id: int) -> int:
    """Return the user's level in the account: 0 none, 1 viewer, 2 data scientist, 3 operator, 4 administrator."""
    if not user.is_active:
        return 0
    if user.is_superuser:
        return ADMIN_LEVEL
    role = Membership.objects.filter(user_id=user.pk, account_id=account_id).values_list("role", flat=True).first()
    return ACCESS_LEVELS[Role(role)] if role else 0


def visible_accounts(user: User) -> list[HostingAccount]:
    """Return the accounts that the user is a member of (all for administrators), by name, without their secrets."""
    accounts = HostingAccount.objects.defer(*HostingAccount.SECRETS)
    if not user.is_superuser:
        accounts = accounts.filter(pk__in=Membership.objects.filter(user_id=user.pk).values("account_id"))
    return list(accounts)


def call_in_account(
    request: Request,
    name: str,
    permission: Permission,
    view: Callable[[HostingAccount], HttpResponse],
    *,
    level_in: Callable[[int], int],
    changes: bool,
    previews: bool = False,
) -> HttpResponse:
    """Call `view` with the account called `name` after checking access. Pages and the JSON API both use this.

    `level_in(account_id)` returns the access level of the user or token. At level 0 the account is invisible
    (Http404); below the level of `permission`, PermissionDenied names the required role. A POST gets an audit entry
    unless `changes` is False. For `previews`, see `run_audited`.
    """
    account = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=name).first()
    level = level_in(account.pk) if account else 0
    if account is None or not level:
        raise Http404("This account doesn’t exist, or you aren’t a member of it.")
    request.account, request.access_level = account, level

    def checked() -> HttpResponse:
        if level < required_level(permission):
            raise PermissionDenied(f"{missing_role_message(permission)} in the account “{account.name}”.")
        return view(account)

    return run_audited(request, checked, previews=previews) if changes else checked()


def requires(permission: Permission, *, changes: bool = True, previews: bool = False) -> Callable[[View], View]:
    """Guard a view whose URL names an account. The view gets the HostingAccount instead of the name.

    Users who are signed out are redirected to sign-in. Non-members get 404, because the account is invisible to them.
    Members with a weaker role get 403 with the required role. A POST gets an audit entry unless `changes` is False.
    For `previews`, see `run_audited`.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: Request, account: str, *args: Any, **kwargs: Any) -> HttpResponse:
            def level_in(account_id: int) -> int:
                return access_level(request.user, account_id)

            def run(row: HostingAccount) -> HttpResponse:
                page_position.record_page_view(request, row)
                if request.method == "GET" and request.htmx.target == "trouble":
                    return render(request, "_shared/_trouble.html")  # part of every page of the account
                if not changes:
                    return view(request, row, *args, **kwargs)
                return respond_once(request, lambda: view(request, row, *args, **kwargs))

            return call_in_account(
                request, account, permission, run, level_in=level_in, changes=changes, previews=previews
            )

        return declare(signed_in(guarded), permission)

    return decorate


def administrators(permission: Permission) -> Callable[[View], View]:
    """Guard a site-wide view that only administrators may use. Each POST gets an audit entry."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
            def run() -> HttpResponse:
                if not request.user.is_superuser:
                    raise PermissionDenied(f"{missing_role_message(permission)}.")
                return respond_once(request, lambda: view(request, *args, **kwargs))

            return run_audited(request, run)

        return declare(signed_in(guarded), permission)

    return decorate


def operators(view: View) -> View:
    """Guard a site-wide view for administrators and for operators of at least one account.

    The view gets the primary keys of the accounts that the user operates, or None for an administrator, who sees all.
    """

    @wraps(view)
    def guarded(request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        operated = operated_accounts(request.user)
        if operated is not None and not operated:
            raise PermissionDenied(f"This requires the “{Role.OPERATOR.label}” role in at least one account.")
        return view(request, operated, *args, **kwargs)

    return declare(signed_in(guarded), "operator of any account")


def operated_accounts(user: User) -> frozenset[int] | None:
    """Return the primary keys of the accounts that the user operates, or None for an administrator: all of them."""
    if user.is_superuser:
        return None
    memberships = Membership.objects.filter(user_id=user.pk, role=Role.OPERATOR)
    return frozenset(memberships.values_list("account_id", flat=True))


def signed_in(view: View) -> View:
    """Guard a view that every signed-in user may use."""

    @wraps(view)
    def guarded(request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_sign_in(request)
        return view(request, *args, **kwargs)

    return declare(guarded, "signed in")


def anyone(view: AnyView) -> AnyView:
    """Declare that a view is open to people who aren't signed in."""
    return declare(view, "anyone")


def declare(view: AnyView, permission: Permission | str) -> AnyView:
    """Set the attribute `permission` of a view, which tests and the API documentation read."""
    vars(view)["permission"] = permission
    return view


def redirect_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect to the sign-in page, and back to the current page after it.

    htmx would follow an ordinary redirect and insert the sign-in page into a table cell, so it gets HX-Redirect.
    """
    if request.headers.get("HX-Request"):
        url = redirect_to_login(local_path(request, request.headers.get("HX-Current-URL", ""))).url
        return HttpResponseClientRedirect(url)
    if request.method in {"GET", "HEAD"}:
        return redirect_to_login(request.get_full_path())
    return redirect_to_login(local_path(request, request.headers.get("Referer", "")))


def local_path(request: HttpRequest, url: str, fallback: str = "") -> str:
    """Return path and query of `url` if it is a page of this site, else `fallback` or the home page."""
    fallback = fallback or reverse("home")
    try:
        parts = urlsplit(url)
    except ValueError:
        return fallback
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    # Both are checked, because the path of a local URL such as http://here//elsewhere can be the URL of another site.
    is_local = url_has_allowed_host_and_scheme(url, {request.get_host()})
    is_local = is_local and url_has_allowed_host_and_scheme(path, None)
    return path if is_local and path.startswith("/") else fallback


def context(request: Request) -> dict[str, Any]:
    """Return the template context: the current account, the user's other accounts, role and permissions."""
    level = getattr(request, "access_level", 0)
    return {
        "account": getattr(request, "account", None),
        "accounts": SimpleLazyObject(lambda: visible_accounts(request.user)),
        "role": role_label(level),
        "may": PermissionSet(level),
        "stream_position": getattr(request, "stream_position", ""),
        "theme": theme(request),
    }


def theme(request: HttpRequest) -> str:
    """Return the selected theme: "light", "dark" or "system"."""
    selected = request.COOKIES.get("theme", "")
    return selected if selected in {"light", "dark"} else "system"
