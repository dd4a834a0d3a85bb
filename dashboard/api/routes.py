"""Every route of the API on one screen. GET /v1/ shows this table; docs/scripting.md explains it."""

import re
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import path, re_path

from dashboard.api import accounts, lists, members, operations, people, places, services, trials
from dashboard.api.guard import ANY_TOKEN, NAME, View, any_token, by_token
from dashboard.permissions import Permission, role_for

OF = "accounts/<slug:account>/"
OPERATION = f"{OF}operations/<uuid:pk>/"
SERVICE = f"{OF}services/<int:pk>/"
PERSON = "people/<int:pk>/"


@any_token
def describe(request: HttpRequest) -> HttpResponse:
    """What there is: this list."""
    return JsonResponse({"routes": described()})


ROUTES: dict[str, dict[str, View]] = {
    "": {"GET": describe},
    "accounts/": {"GET": lists.list_accounts, "POST": accounts.add_account},
    OF: {"GET": lists.get_account, "DELETE": accounts.delete_account},
    f"{OF}server/": {"GET": accounts.get_server, "PATCH": accounts.change_server},
    f"{OF}server/test/": {"POST": trials.test_server},
    f"{OF}models/": {"GET": lists.list_of("model")},
    f"{OF}models/<int:pk>/": {"GET": lists.get_one("model")},
    f"{OF}assets/": {"GET": lists.list_of("asset"), "POST": operations.add_asset},
    f"{OF}assets/<int:pk>/": {"GET": lists.get_one("asset")},
    f"{OF}manifests/": {"GET": lists.list_of("manifest")},
    f"{OF}manifests/<int:pk>/": {"GET": lists.get_one("manifest")},
    f"{OF}images/": {"GET": lists.list_of("image")},
    f"{OF}images/<int:pk>/": {"GET": lists.get_one("image")},
    f"{OF}services/": {"GET": lists.list_of("service")},
    SERVICE: {"GET": lists.get_one("service")},
    f"{SERVICE}log/": {"GET": services.service_log},
    f"{SERVICE}test/": {"POST": services.test_service},
    f"{SERVICE}key/": {"POST": services.show_key},
    f"{OF}operations/": {"GET": lists.list_of("operation"), "POST": operations.create_operation},
    OPERATION: {"GET": lists.get_one("operation")},
    f"{OPERATION}log/": {"GET": services.operation_log},
    f"{OPERATION}retry/": {"POST": operations.retry_operation},
    f"{OPERATION}cancel/": {"POST": operations.cancel_operation},
    f"{OPERATION}settle/": {"POST": operations.settle_operation},
    f"{OPERATION}resume/": {"POST": operations.resume_operation},
    f"{OF}refresh/": {"POST": operations.refresh},
    "people/": {"GET": people.list_people, "POST": people.add_person},
    PERSON: {"PATCH": people.change_person},
    "audit/": {"GET": people.list_audit},
    f"{OF}members/": {"GET": members.list_members, "POST": members.add_member},
    f"{OF}members/<int:pk>/": {
        "GET": members.get_member,
        "PATCH": members.change_member,
        "DELETE": members.remove_member,
    },
}
for place in (places.REGISTRY, places.CLUSTER):
    ROUTES[f"{OF}{place.plural}/"] = {"GET": places.list_of(place), "POST": places.add(place)}
    ROUTES[f"{OF}{place.plural}/<int:pk>/test/"] = {"POST": trials.test_of(place)}
    ROUTES[f"{OF}{place.plural}/<int:pk>/"] = {
        "GET": places.get_one(place),
        "PATCH": places.change(place),
        "DELETE": places.delete(place),
    }
NAMES = {
    "": "describe",
    "accounts/": "list_accounts",
    OF: "get_account",
    f"{SERVICE}log/": "service_log",
    f"{SERVICE}test/": "test_service",
    f"{SERVICE}key/": "show_key",
    f"{OPERATION}log/": "operation_log",
    f"{OF}refresh/": "refresh",
    f"{OF}server/": "get_server",
    f"{OF}server/test/": "test_server",
    "people/": "list_people",
    PERSON: "change_person",
    "audit/": "list_audit",
}


def name_of(route: str) -> str:
    """What the URL is called: as the page that does the same, with v1_ before it."""
    if route in NAMES:
        return NAME + NAMES[route]
    _, _, noun, *rest = route.rstrip("/").split("/")
    if not rest:
        return f"{NAME}list_{noun}"
    one = "registry" if noun == "registries" else noun.removesuffix("s")
    return f"{NAME}{rest[1] if len(rest) > 1 else 'get'}_{one}"


def described() -> list[dict[str, Any]]:
    return [
        {
            "method": method,
            "path": "/v1/" + re.sub("<[a-z]+:([a-z]+)>", r"{\1}", route),
            "needs": _needs(method, view),
            "does": " ".join((view.__doc__ or "").split()),
        }
        for route, methods in ROUTES.items()
        for method, view in methods.items()
    ]


def _needs(method: str, view: View) -> str:
    permission = view.permission  # type: ignore[attr-defined]
    if view is operations.create_operation:
        return f"{role_for(Permission.CREATE_IMAGE)}, scope write"
    if permission == ANY_TOKEN:
        return permission
    reads = method == "GET" or permission == Permission.SEE
    return role_for(permission) if reads else f"{role_for(permission)}, scope write"


def _nothing(request: HttpRequest, **_: Any) -> HttpResponse:
    raise Http404


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
urls = [
    *(path(route, by_token(methods), name=name_of(route)) for route, methods in ROUTES.items()),
    re_path(r"^.*$", by_token(dict.fromkeys(METHODS, any_token(_nothing))), name="v1_nothing"),
]
