"""Clients of the JSON API with their tokens, the counterpart of `people.py` for pages."""

import json
from datetime import timedelta
from functools import lru_cache
from typing import Any

import jsonschema
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import Resolver404, resolve
from django.utils import timezone

from dashboard.api.openapi.declare import Endpoint
from dashboard.api.routes import document, endpoints
from dashboard.auth import tokens
from dashboard.models import ApiToken, Membership, Role
from deployments.models import HostingAccount
from tests.support.people import Lab


class Program:
    """Client that sends JSON with a bearer token and without cookies. Without a `token` it sends no header.

    Every response must match the OpenAPI document.
    """

    def __init__(self, token: str = "", client: Client | None = None) -> None:
        self.token, self.client = token, client or Client()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
        kind = "application/json" if data else ""
        response = self.client.generic(
            method, path, data, kind, headers={n.replace("_", "-"): v for n, v in headers.items()}
        )
        check_response(method, path.partition("?")[0], response)
        return response

    def get(self, path: str, **headers: str) -> Any:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)


@lru_cache(1)
def strict_document() -> dict[str, Any]:
    """Return the OpenAPI document, changed so that objects can't have fields missing from their schema."""
    whole: dict[str, Any] = json.loads(json.dumps(document()))
    for schema in whole["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    return whole


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the API method at `path`, or None."""
    try:
        name = resolve(path).url_name
    except Resolver404:
        return None
    return next((found for found in endpoints() if (found.method, found.url_name) == (method, name)), None)


def check_response(method: str, path: str, response: Any) -> None:
    """Fail if the document doesn't list the status, or if the body doesn't match its schema."""
    whole, endpoint = strict_document(), endpoint_of(method, path)
    status, responses = str(response.status_code), whole["components"]["responses"]
    if endpoint is None or response.status_code == 405 or response.status_code >= 500:
        found = responses["default"]
    else:
        operation = whole["paths"][endpoint.path][method.lower()]
        assert status in operation["responses"], f"{method} {endpoint.path}: {status} is not in the document"
        found = operation["responses"][status]
    if "$ref" in found:
        found = responses[found["$ref"].rpartition("/")[2]]
    assert set(found.get("headers", {})) - {"X-Log-End"} <= set(response.headers), (method, path)
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    expected = set(found.get("content", {}))
    assert expected == {kind} if expected else not response.content, (method, path, status)
    if expected and kind == "application/json":
        schema = {**found["content"][kind]["schema"], "components": whole["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())


def person(name: str, account: HostingAccount | None = None, role: Role | None = None) -> Any:
    """Return the user with this name and role in the account. Create the user if needed."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    if account and role:
        Membership.objects.get_or_create(user=user, account_id=account.pk, defaults={"role": role})
    return user


def token_of(user: Any, scope: str = ApiToken.Scope.WRITE, account: HostingAccount | None = None, days: int = 7) -> str:
    return tokens.create(user, f"{scope} token", scope, account.pk if account else None, days)[1]


def row_of(lab: Lab, nouns: str) -> Any:
    """Return the lab's row that an address with one of `nouns` refers to. For users it is the member."""
    if nouns == "people":
        return lab.member.user
    return getattr(lab, "registry" if nouns == "registries" else nouns.removesuffix("s"))


def expired(text: str) -> str:
    _row(text).update(expires_at=timezone.now() - timedelta(seconds=1))
    return text


def revoked(text: str) -> str:
    _row(text).update(revoked_at=timezone.now())
    return text


def _row(text: str) -> Any:
    return ApiToken.objects.filter(digest=tokens._digest(text))
