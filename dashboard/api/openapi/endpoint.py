"""One method of one route: its view, and what the API says about it."""

import re
from dataclasses import dataclass

from dashboard.api.guard import ANY_TOKEN, NAME, View
from dashboard.api.openapi.declare import Declaration, declaration_of
from dashboard.api.problems import PREFIX
from dashboard.permissions import Permission, role_for

PARAMETER = re.compile("<([a-z]+):([a-z]+)>")


@dataclass(frozen=True)
class Endpoint:
    """One method of one route; `url_name` is the name of the URL."""

    method: str
    route: str
    url_name: str
    view: View

    @property
    def path(self) -> str:
        """The path as in OpenAPI: /v1/accounts/{account}/."""
        return PREFIX + PARAMETER.sub(r"{\2}", self.route)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of the path, as pairs of converter and name."""
        return PARAMETER.findall(self.route)

    @property
    def declaration(self) -> Declaration:
        return declaration_of(self.view)

    @property
    def operation_id(self) -> str:
        """The name in the audit log; for reads, the name of the URL."""
        declared, audited = self.declaration.operation_id, getattr(self.view, "action", "")
        return declared or audited or self.url_name.removeprefix(NAME)

    @property
    def description(self) -> str:
        return " ".join((self.view.__doc__ or "").split())

    @property
    def permission(self) -> str:
        """The permission that the operation needs, or ANY_TOKEN."""
        guarded: str = self.view.permission  # type: ignore[attr-defined]
        return self.declaration.permission or guarded

    @property
    def is_open(self) -> bool:
        """Any valid token is enough."""
        return self.permission == ANY_TOKEN

    @property
    def scope(self) -> str:
        """The scope that the token needs: read or write."""
        return "read" if self.method == "GET" or self.permission in (ANY_TOKEN, Permission.SEE) else "write"

    @property
    def needs(self) -> str:
        """The role and the scope for people: `Data scientist, scope write`."""
        if self.is_open:
            return self.permission
        role = role_for(Permission(self.permission))
        return role if self.scope == "read" else f"{role}, scope write"
