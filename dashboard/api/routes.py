"""Routes of the API. GET /v1/ returns this table; docs/reference/dashboard-api.md explains it."""

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import URLPattern, path, re_path
from django.urls.resolvers import RoutePattern
from django.views.decorators.http import condition, require_safe

from dashboard.access.guards import anyone
from dashboard.api.guards import JSON, URL_NAME_PREFIX, ApiRequest, View, any_token, by_token
from dashboard.api.openapi.declare import Endpoint, Schema, declare
from dashboard.api.openapi.document import make_document
from dashboard.api.openapi.operation import ERRORS
from dashboard.api.openapi.page import groups_of, objects_of
from dashboard.api.openapi.resources import RouteList
from dashboard.api.views import accounts, connection_tests, members, operations, people, resources, services, settings
from dashboard.version import __version__

ACCOUNT = "accounts/<slug:account>/"
OPERATION = f"{ACCOUNT}operations/<uuid:pk>/"
SERVICE = f"{ACCOUNT}services/<int:pk>/"
PERSON = "people/<int:pk>/"


@any_token
@declare(RouteList)
def describe(request: ApiRequest) -> HttpResponse:
    """List the routes of the API."""
    return JsonResponse(described())


ROUTES: dict[str, dict[str, View]] = {
    "": {"GET": describe},
    "accounts/": {"GET": resources.list_accounts, "POST": accounts.add_account},
    ACCOUNT: {"GET": resources.get_account, "DELETE": accounts.delete_account},
    f"{ACCOUNT}server/": {"GET": accounts.get_server, "PATCH": accounts.change_server},
    f"{ACCOUNT}server/test/": {"POST": connection_tests.test_server},
    f"{ACCOUNT}models/": {"GET": resources.list_of("model")},
    f"{ACCOUNT}models/<int:pk>/": {"GET": resources.get_one("model")},
    f"{ACCOUNT}assets/": {"GET": resources.list_of("asset"), "POST": operations.add_asset},
    f"{ACCOUNT}assets/<int:pk>/": {"GET": resources.get_one("asset")},
    f"{ACCOUNT}manifests/": {"GET": resources.list_of("manifest")},
    f"{ACCOUNT}manifests/<int:pk>/": {"GET": resources.get_one("manifest")},
    f"{ACCOUNT}images/": {"GET": resources.list_of("image")},
    f"{ACCOUNT}images/<int:pk>/": {"GET": resources.get_one("image")},
    f"{ACCOUNT}services/": {"GET": resources.list_of("service")},
    SERVICE: {"GET": resources.get_one("service")},
    f"{SERVICE}log/": {"GET": services.service_log},
    f"{SERVICE}test/": {"POST": services.test_service},
    f"{SERVICE}key/": {"POST": services.show_key},
    f"{ACCOUNT}operations/": {"GET": resources.list_of("operation"), "POST": operations.create_operation},
    OPERATION: {"GET": resources.get_one("operation")},
    f"{OPERATION}log/": {"GET": services.operation_log},
    f"{OPERATION}retry/": {"POST": operations.retry_operation},
    f"{OPERATION}cancel/": {"POST": operations.cancel_operation},
    f"{OPERATION}settle/": {"POST": operations.settle_operation},
    f"{OPERATION}resume/": {"POST": operations.resume_operation},
    f"{ACCOUNT}refresh/": {"POST": operations.refresh},
    f"{ACCOUNT}pause/end/": {"POST": accounts.end_pause},
    "people/": {"GET": people.list_people, "POST": people.add_person},
    PERSON: {"PATCH": people.change_person},
    "audit/": {"GET": people.list_audit},
    f"{ACCOUNT}members/": {"GET": members.list_members, "POST": members.add_member},
    f"{ACCOUNT}members/<int:pk>/": {
        "GET": members.get_member,
        "PATCH": members.change_member,
        "DELETE": members.remove_member,
    },
}
for resource in (settings.REGISTRY, settings.CLUSTER):
    ROUTES[f"{ACCOUNT}{resource.plural}/"] = {"GET": settings.list_of(resource), "POST": settings.add(resource)}
    ROUTES[f"{ACCOUNT}{resource.plural}/<int:pk>/test/"] = {"POST": connection_tests.test_of(resource)}
    ROUTES[f"{ACCOUNT}{resource.plural}/<int:pk>/"] = {
        "GET": settings.get_one(resource),
        "PATCH": settings.change(resource),
        "DELETE": settings.delete(resource),
    }
NAMES = {
    "": "describe",
    "accounts/": "list_accounts",
    ACCOUNT: "get_account",
    f"{SERVICE}log/": "service_log",
    f"{SERVICE}test/": "test_service",
    f"{SERVICE}key/": "show_key",
    f"{OPERATION}log/": "operation_log",
    f"{ACCOUNT}refresh/": "refresh",
    f"{ACCOUNT}pause/end/": "end_pause",
    f"{ACCOUNT}server/": "get_server",
    f"{ACCOUNT}server/test/": "test_server",
    "people/": "list_people",
    PERSON: "change_person",
    "audit/": "list_audit",
}


def url_name_of(route: str) -> str:
    """Return the name of the route's URL: the name of the page that does the same, prefixed with v1_."""
    if route in NAMES:
        return URL_NAME_PREFIX + NAMES[route]
    _, _, noun, *rest = route.rstrip("/").split("/")
    if not rest:
        return f"{URL_NAME_PREFIX}list_{noun}"
    one = "registry" if noun == "registries" else noun.removesuffix("s")
    return f"{URL_NAME_PREFIX}{rest[1] if len(rest) > 1 else 'get'}_{one}"


def endpoints() -> list[Endpoint]:
    """Return every method of every route."""
    return [
        Endpoint(method, route, url_name_of(route), view)
        for route, methods in ROUTES.items()
        for method, view in methods.items()
    ]


def described() -> RouteList:
    """Return the routes as GET /v1/ shows them."""
    return {
        "routes": [
            {"method": endpoint.method, "path": endpoint.path, "needs": endpoint.needs, "does": endpoint.description}
            for endpoint in endpoints()
        ]
    }


@lru_cache(1)
def document() -> Schema:
    """Return the OpenAPI document of the API."""
    return make_document(endpoints(), __version__)


@lru_cache(1)
def _document_json() -> tuple[bytes, str]:
    """Return the document as JSON, and its ETag."""
    text = json.dumps(document(), indent=1, ensure_ascii=False).encode()
    return text, f'"{sha256(text).hexdigest()[:32]}"'


@anyone
@require_safe
@condition(etag_func=lambda request: _document_json()[1])
def show_document(request: ApiRequest) -> HttpResponse:
    """Respond with the OpenAPI document. It is public: it contains nothing specific to this installation."""
    return HttpResponse(_document_json()[0], content_type=JSON, headers={"Cache-Control": "max-age=300"})


@anyone
@require_safe
def show_docs(request: ApiRequest) -> HttpResponse:
    """Show the document as a page."""
    specification = document()
    page = {
        "info": specification["info"],
        "groups": groups_of(specification),
        "objects": objects_of(specification),
        "errors": ERRORS,
    }
    return render(request, "api/docs.html", page)


def _not_found(request: ApiRequest, **_: Any) -> HttpResponse:
    raise Http404


class OptionalSlash(RoutePattern):
    """A route that also matches without its trailing slash. URLs created by the site include it.

    A redirect would lose the body of a POST, so both are the same route.
    """

    def match(self, path: str) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
        """Return the rest of the path and the arguments, or None."""
        found = super().match(path)
        return found if found or not path or path.endswith("/") else super().match(f"{path}/")


def _url(route: str, methods: dict[str, View]) -> URLPattern:
    name = url_name_of(route)
    return URLPattern(OptionalSlash(route, name=name, is_endpoint=True), by_token(methods), name=name)


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
urls = [
    path("openapi.json", show_document, name="api_document"),
    re_path(r"^docs/?$", show_docs, name="api_docs"),
    *(_url(route, methods) for route, methods in ROUTES.items()),
    re_path(r"^.*$", by_token(dict.fromkeys(METHODS, any_token(_not_found))), name="v1_nothing"),
]
