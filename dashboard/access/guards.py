"""Roles and guards: who may see and change what. Deny by default; every view names who may use it.

Each view wears exactly one of `requires(permission)`, `administrators(permission)`, `operators`, `signed_in` and
`anyone`; a test walks all URLs and fails where one wears none. Which role has which permission: permissions.py.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.http import url_has_allowed_host_and_scheme
from django_htmx.http import HttpResponseClientRedirect

from dashboard.access import page_position
from dashboard.access.permissions import ADMIN, RANK, May, Permission, name_of_rank, needed, role_missing
from dashboard.audit.record import audited
from dashboard.models import Membership, Role
from deployments.models import HostingAccount

View = Callable[..., HttpResponse]


def rank(user: Any, account_id: int) -> int:
    """How much `user` may do in the account: 0 nothing, 1 viewer, 2 data scientist, 3 operator, 4 administrator."""
    if not user.is_active:
        return 0
    if user.is_superuser:
        return ADMIN
    role = Membership.objects.filter(user_id=user.pk, account_id=account_id).values_list("role", flat=True).first()
    return RANK[Role(role)] if role else 0


def visible_accounts(user: Any) -> list[HostingAccount]:
    """The hosting accounts `user` is a member of (an administrator: all), by name, without their secrets."""
    accounts = HostingAccount.objects.defer(*HostingAccount.SECRETS)
    if not user.is_superuser:
        accounts = accounts.filter(pk__in=Membership.objects.filter(user_id=user.pk).values("account_id"))
    return list(accounts)


def enter(
    request: HttpRequest,
    name: str,
    permission: Permission,
    act: Callable[[HostingAccount], HttpResponse],
    *,
    rank_in: Callable[[int], int],
    changes: bool,
    previews: bool = False,
) -> HttpResponse:
    """What `act` answers for the account called `name`: the one way in, for pages and for the JSON API.

    `rank_in(account_id)` is how much who asks may do there. With none the account is invisible (Http404); with less
    than `permission` takes it is PermissionDenied, naming the role. A POST gets an audit entry, unless it `changes`
    nothing. `previews`: as for audit.audited.
    """
    found = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=name).first()
    have = rank_in(found.pk) if found else 0
    if found is None or not have:
        raise Http404("This account doesn’t exist, or you aren’t a member of it.")
    request.account, request.rank = found, have  # type: ignore[attr-defined]

    def checked() -> HttpResponse:
        if have < needed(permission):
            raise PermissionDenied(f"{role_missing(permission)} in the account “{found.name}”.")
        return act(found)

    return audited(request, checked, previews=previews) if changes else checked()


def requires(permission: Permission, *, changes: bool = True, previews: bool = False) -> Callable[[View], View]:
    """Guard a view whose URL names an account: the view gets the HostingAccount instead of the name.

    Who is not signed in is sent to sign in; who is no member gets 404 (the account is invisible to them); who is a
    member with a weaker role gets 403 with the role that is needed. A POST gets an audit entry, unless it `changes`
    nothing. `previews`: as for audit.audited.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, account: str, *args: Any, **kwargs: Any) -> HttpResponse:
            def rank_in(account_id: int) -> int:
                return rank(request.user, account_id)

            def act(found: HostingAccount) -> HttpResponse:
                page_position.begin(request, found)
                if request.method == "GET" and request.htmx.target == "trouble":  # type: ignore[attr-defined]
                    return render(request, "_shared/_trouble.html")  # a part of every page of the account
                return view(request, found, *args, **kwargs)

            return enter(request, account, permission, act, rank_in=rank_in, changes=changes, previews=previews)

        outer = signed_in(guarded)
        outer.permission = permission  # type: ignore[attr-defined]
        return outer

    return decorate


def administrators(permission: Permission) -> Callable[[View], View]:
    """Guard a view of the whole site that only administrators may use; each POST gets an audit entry."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            def act() -> HttpResponse:
                if not request.user.is_superuser:
                    raise PermissionDenied(f"{role_missing(permission)}.")
                return view(request, *args, **kwargs)

            return audited(request, act)

        outer = signed_in(guarded)
        outer.permission = permission  # type: ignore[attr-defined]
        return outer

    return decorate


def operators(view: View) -> View:
    """Guard a view of the whole installation, for administrators and for operators of at least one account.

    The view gets the primary keys of the accounts that the reader operates; None for an administrator, who sees all.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        operated = operated_accounts(request.user)
        if operated is not None and not operated:
            raise PermissionDenied(f"This requires the “{Role.OPERATOR.label}” role in at least one account.")
        return view(request, operated, *args, **kwargs)

    outer = signed_in(guarded)
    outer.permission = "operator of any account"  # type: ignore[attr-defined]
    return outer


def operated_accounts(user: Any) -> frozenset[int] | None:
    """Primary keys of the accounts in which `user` is an operator; None for an administrator, who is one everywhere."""
    if user.is_superuser:
        return None
    mine = Membership.objects.filter(user_id=user.pk, role=Role.OPERATOR)
    return frozenset(mine.values_list("account_id", flat=True))


def signed_in(view: View) -> View:
    """Guard a view that everybody who is signed in may use."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return ask_to_sign_in(request)
        return view(request, *args, **kwargs)

    guarded.permission = "signed in"  # type: ignore[attr-defined]
    return guarded


def anyone(view: Callable[..., Any]) -> Callable[..., Any]:
    """Say that a view is open to people who are not signed in."""
    view.permission = "anyone"  # type: ignore[attr-defined]
    return view


def ask_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Lead to the sign-in page and back to the page the reader was on.

    htmx would follow a plain redirect silently and put the sign-in page into a table cell: it gets HX-Redirect.
    """
    if request.headers.get("HX-Request"):
        url = redirect_to_login(own_path(request, request.headers.get("HX-Current-URL", ""))).url
        return HttpResponseClientRedirect(url)
    if request.method in {"GET", "HEAD"}:
        return redirect_to_login(request.get_full_path())
    return redirect_to_login(own_path(request, request.headers.get("Referer", "")))


def own_path(request: HttpRequest, url: str, otherwise: str = "") -> str:
    """Path and query of `url` if it is a page of this site, else the path `otherwise` (the home page)."""
    otherwise = otherwise or reverse("home")
    try:
        parts = urlsplit(url)
    except ValueError:
        return otherwise
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    # Judged twice: the path of an address of ours, http://here//elsewhere, may itself be the address of another site.
    safe = url_has_allowed_host_and_scheme(url, {request.get_host()}) and url_has_allowed_host_and_scheme(path, None)
    return path if safe and path.startswith("/") else otherwise


def context(request: HttpRequest) -> dict[str, Any]:
    """Template context: the current account, the reader's other accounts and role, and what the reader may do here."""
    have = getattr(request, "rank", 0)
    return {
        "account": getattr(request, "account", None),
        "accounts": SimpleLazyObject(lambda: visible_accounts(request.user)),
        "role": name_of_rank(have),
        "may": May(have),
        "stream_position": getattr(request, "stream_position", ""),
        "theme": theme(request),
    }


def theme(request: HttpRequest) -> str:
    """The reader's choice of colours: "light", "dark" or "system"."""
    chosen = request.COOKIES.get("theme", "")
    return chosen if chosen in {"light", "dark"} else "system"
