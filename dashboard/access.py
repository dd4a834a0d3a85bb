"""Roles and guards: who may see and change what. Deny by default; every view names the role it needs."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse

from dashboard.models import Membership, Role
from deployments.models import HostingAccount

RANK = {Role.VIEWER: 1, Role.SCIENTIST: 2, Role.OPERATOR: 3}
ADMIN = 4


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
    accounts = HostingAccount.objects.defer("token")
    if not user.is_superuser:
        accounts = accounts.filter(pk__in=Membership.objects.filter(user_id=user.pk).values("account_id"))
    return list(accounts)


def requires(role: Role) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Guard a view whose URL names an account: the view gets the HostingAccount instead of the name.

    Who is not signed in is sent to sign in; who is no member gets 404 (the account is invisible to them); who is a
    member with a weaker role gets 403 with the role that is needed.
    """

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @login_required
        @wraps(view)
        def guarded(request: HttpRequest, account: str, *args: Any, **kwargs: Any) -> HttpResponse:
            found = HostingAccount.objects.defer("token").filter(name=account).first()
            have = rank(request.user, found.pk) if found else 0
            if found is None or not have:
                raise Http404("There is no such account, or you are not a member of it.")
            request.account, request.rank = found, have  # type: ignore[attr-defined]
            if have < RANK[role]:
                raise PermissionDenied(f"This needs the role “{role.label}” in the account “{found.name}”.")
            return view(request, found, *args, **kwargs)

        guarded.required_role = role  # type: ignore[attr-defined]
        return guarded

    return decorate


def context(request: HttpRequest) -> dict[str, Any]:
    """Template context: the current account, and what the reader may do in it (`may.change`, `may.operate`)."""
    have = getattr(request, "rank", 0)
    return {
        "account": getattr(request, "account", None),
        "may": {"change": have >= RANK[Role.SCIENTIST], "operate": have >= RANK[Role.OPERATOR]},
    }
