"""From a path to a route. All paths are /api/subscriptions/S/resourceGroups/G/hostingAccounts/A/<route>[/]."""

from typing import NamedTuple
from uuid import UUID

from mms.api.errors import ApiError, not_found
from mms.api.http import Route, parse_id
from mms.api.routes import ROUTES
from mms.tokens import Grant

# e.g. {"services/{id}": {"GET": …, "PUT": …}}
_TABLE: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    _TABLE.setdefault(_route.path, {})[_route.method] = _route


_FIXED = ["", "api", "subscriptions", "resourceGroups", "hostingAccounts"]


class AccountPath(NamedTuple):
    """A path taken apart: the account it names, and what follows it."""

    subscription: str
    resource_group: str
    account: str
    rest: list[str]

    def belongs_to(self, grant: Grant) -> bool:
        return (self.subscription, self.resource_group, self.account) == (
            grant.subscription,
            grant.resource_group,
            grant.account,
        )


def parse_path(path: str) -> AccountPath:
    """Take a path apart; raises ApiError 404 where it is none of this API."""
    parts = path.removesuffix("/").split("/")
    if len(parts) < 9 or [*parts[:3], parts[4], parts[6]] != _FIXED:
        raise ApiError(404, "NotFound", "There is nothing at this path. GET /api/docs describes the API.")
    return AccountPath(parts[3], parts[5], parts[7], parts[8:])


def find_route(method: str, rest: list[str]) -> tuple[Route, dict[str, UUID]]:
    """The route for what follows the account, and the id in it. Raises ApiError 404 or 405."""
    shape = "/".join("{id}" if index == 1 else part for index, part in enumerate(rest))
    methods = _TABLE.get(shape)
    if methods is None:
        raise ApiError(404, "NotFound", "There is nothing at this path. GET /api/docs describes the API.")
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join(sorted(methods))
        raise ApiError(405, "MethodNotAllowed", f"This path takes {allowed}.", headers={"allow": allowed})
    if len(rest) == 1:
        return route, {}
    id = parse_id(rest[1])
    if id is None:
        raise not_found(rest[0].removesuffix("s"), rest[1])
    return route, {"id": id}
