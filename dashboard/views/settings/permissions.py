"""The page of the user's permissions in an account, with the users who can grant more."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.models import Membership, Role
from dashboard.access.permissions import ACCESS_LEVELS, ADMIN_LEVEL, ADMINISTRATOR, Permission, required_level
from dashboard.http.request import Request
from deployments.models import HostingAccount

MAX_NAMES = 12  # users shown per role


@require_safe
@requires(Permission.SEE)
def see_roles(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the table of permissions with the user's role marked, and the users who can grant another role."""
    have = request.access_level
    roles = [(role.label, ACCESS_LEVELS[role]) for role in Role] + [(ADMINISTRATOR, ADMIN_LEVEL)]
    page = {
        "roles": [(label, rank == have) for label, rank in roles],
        "rows": [_row(permission, have, [rank for _, rank in roles]) for permission in Permission],
        **_who_can_grant(account),
    }
    return render(request, "roles/see_roles.html", page)


def _row(permission: Permission, have: int, ranks: list[int]) -> dict[str, Any]:
    least = required_level(permission)
    return {"words": permission.label, "mine": have >= least, "by": [rank >= least for rank in ranks]}


def _who_can_grant(account: HostingAccount) -> dict[str, list[str]]:
    """Return the names of the users who may change members: the account's operators, and the administrators."""
    active = get_user_model().objects.filter(is_active=True).order_by("username")
    operators = Membership.objects.filter(account_id=account.pk, role=Role.OPERATOR).values("user_id")
    users_by_role = {
        "operators": active.filter(pk__in=operators, is_superuser=False),
        "administrators": active.filter(is_superuser=True),
    }
    return {name: [user.get_username() for user in users[:MAX_NAMES]] for name, users in users_by_role.items()}
