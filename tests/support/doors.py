"""Every page of the site: its name, the permission it requires, and its URL for the resources of a lab."""

from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse

from dashboard.access.permissions import Permission
from tests.support.people import Lab

MADE_UP = {
    "token": "no-such-token",
    "session": "no-such-session",
    "uidb64": "MQ",
    "key": "0",
    "client_id": "x",
    "provider_id": "x",
}


def patterns(resolver: URLResolver | None = None) -> Iterator[URLPattern]:
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern)
        else:
            yield pattern


# test_v1_access.py covers the routes that only tokens can use.
VIEWS = {str(pattern.name): pattern.callback for pattern in patterns() if not str(pattern.name).startswith("v1_")}
ROUTES = {str(pattern.name): str(pattern.pattern) for pattern in patterns()}
PARAMETERS = {name: set(get_resolver().reverse_dict.getlist(name)[0][3]) for name in VIEWS}
OF_AN_ACCOUNT = sorted(
    name
    for name, view in VIEWS.items()
    if isinstance(getattr(view, "permission", None), Permission) and "account" in PARAMETERS[name]
)


def permission_of(name: str) -> Any:
    """Return the rule of the page's guard: a Permission or another rule, or None without a guard."""
    return getattr(VIEWS[name], "permission", None)


def address(name: str, lab: Lab) -> str:
    """Return the URL of the page `name` for the resources of the lab."""
    arguments: dict[str, Any] = {}
    for parameter in get_resolver().reverse_dict.getlist(name)[0][0][0][1]:
        arguments[parameter] = MADE_UP.get(parameter)
    if "account" in arguments:
        arguments["account"] = lab.account.name
    if "pk" in arguments:
        folder = ROUTES[name].removeprefix("settings/").partition("/")[0]
        noun = {"registries": "registry", "people": "person"}.get(folder, folder.removesuffix("s"))
        row = lab.member.user if noun == "person" else getattr(lab, noun)
        arguments["pk"] = row.pk
    return reverse(name, kwargs=arguments)
