"""Routing. All paths are /api/subscriptions/S/resourceGroups/G/hostingAccounts/A/<route>[/]."""

from typing import NamedTuple
from uuid import UUID

from mms.api.errors import ApiError, not_found
from mms.api.http import Route, parse_id
from mms.api.routes import ROUTES
from mms.tokens import Grant

# Routes by path and method, for example {"services/{id}": {"GET": ..., "PUT": ...}}.
_ROUTES: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _ROUTES.setdefault(_route.path, {})[_route.method] = _route

_FIXED_PARTS = ["", "api", "subscriptions", "resourceGroups", "hostingAccounts"]


class AccountPath(NamedTuple):
    """A parsed path: the names of the account, and the parts after it."""

    subscription: str
    resource_group: str
    account: str
    rest: list[str]

    def belongs_to(self, grant: Grant) -> bool:
        """Return True if the path names the account of `grant`."""
        return (self.subscription, self.resource_group, self.account) == (
            grant.subscription,
            grant.resource_group,
            grant.account,
        )


def parse_path(path: str) -> AccountPath:
    """Parse the path of a request. Raises ApiError 404 if it lacks this API's prefix."""
    parts = path.removesuffix("/").split("/")
    if len(parts) < 9 or [*parts[:3], parts[4], parts[6]] != _FIXED_PARTS:
        raise _path_not_found()
    return AccountPath(parts[3], parts[5], parts[7], parts[8:])


def find_route(method: str, rest: list[str]) -> tuple[Route, dict[str, UUID]]:
    """Return the route for the parts after the account, and the ID among them. Raises ApiError 404 or 405."""
    shape = "/".join("{id}" if index == 1 else part for index, part in enumerate(rest))
    methods = _ROUTES.get(shape)
    if methods is None:
        raise _path_not_found()
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join(sorted(methods))
        raise ApiError(405, "MethodNotAllowed", f"This path allows only {allowed}.", headers={"allow": allowed})
    if len(rest) == 1:
        return route, {}
    id = parse_id(rest[1])
    if id is None:
        raise not_found(rest[0].removesuffix("s"), rest[1])
    return route, {"id": id}


def _path_not_found() -> ApiError:
    return ApiError(404, "NotFound", "This path doesn't exist. GET /api/docs lists all of them.")
