"""Every page of the site: what it is called, who may use it, and its address for a lab's own things."""

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


# What is opened by token alone is walked by test_v1_access.py.
VIEWS = {str(pattern.name): pattern.callback for pattern in patterns() if not str(pattern.name).startswith("v1_")}
ROUTES = {str(pattern.name): str(pattern.pattern) for pattern in patterns()}
PARAMETERS = {name: set(get_resolver().reverse_dict.getlist(name)[0][3]) for name in VIEWS}
OF_AN_ACCOUNT = sorted(
    name
    for name, view in VIEWS.items()
    if isinstance(getattr(view, "permission", None), Permission) and "account" in PARAMETERS[name]
)


def permission_of(name: str) -> Any:
    """What the guard of the page says: a Permission, or who else may come in; None where nobody decided."""
    return getattr(VIEWS[name], "permission", None)


def address(name: str, lab: Lab) -> str:
    """The URL of the page called `name`, of the lab's own things."""
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
