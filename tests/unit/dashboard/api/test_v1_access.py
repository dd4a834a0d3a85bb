"""Access to every route and method of the JSON API with every kind of token."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.access.permissions import Permission, required_level, required_role
from dashboard.api.guards import ANY_TOKEN, View
from dashboard.api.routes import METHODS, ROUTES
from dashboard.api.views import operations as api_operations
from dashboard.models import ApiToken, AuditEntry, Role
from deployments.models import HostingAccount, Operation
from tests.support.people import Lab, make_lab
from tests.support.programs import Program, expired, person, revoked, row_of, token_of
from tests.support.workshop import make_account, make_image

pytestmark = pytest.mark.django_db
RANKS = {"viewer": 1, "scientist": 2, "operator": 3, "admin": 4}
ADMINISTRATORS_ONLY = {Permission.CHANGE_ACCOUNTS, Permission.CHANGE_PEOPLE}
READERS = ("reader", "elsewhere")
DEAD = ("anonymous", "unknown", "expired", "revoked", "inactive", "of the mms", "cookie", "cookie and address")
WALK = [(route, method) for route in ROUTES for method in METHODS]
OF_AN_ACCOUNT = [
    (route, method) for route, methods in ROUTES.items() for method in methods if "<slug:account>" in route
]

OF_THE_SITE = [
    (route, method)
    for route, methods in ROUTES.items()
    for method, view in methods.items()
    if "<slug:account>" not in route and view.permission in ADMINISTRATORS_ONLY  # type: ignore[attr-defined]
]


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def programs(lab: Lab) -> dict[str, Program]:
    account = lab.account
    elsewhere = make_account("elsewhere")
    otto = person("otto", account, Role.OPERATOR)
    person("otto", elsewhere, Role.OPERATOR)
    gone = token_of(person("gone", account, Role.OPERATOR))
    get_user_model().objects.filter(username="gone").update(is_active=False)
    browser = Client()
    browser.force_login(otto)
    found = {
        "viewer": token_of(person("vera", account, Role.VIEWER)),
        "scientist": token_of(person("sam", account, Role.SCIENTIST)),
        "operator": token_of(otto, account=account),
        "admin": token_of(get_user_model().objects.create_superuser("ada")),
        "stranger": token_of(person("stella", elsewhere, Role.OPERATOR)),
        "reader": token_of(otto, ApiToken.Scope.READ),
        "elsewhere": token_of(otto, account=elsewhere),
        "unknown": "dash_" + "x" * 43,
        "expired": expired(token_of(otto)),
        "revoked": revoked(token_of(otto)),
        "inactive": gone,
        "of the mms": "mms_" + "x" * 43,
        "anonymous": "",
    }
    return {
        **{name: Program(token) for name, token in found.items()},
        "cookie": Program("", browser),
        "cookie and address": Program("", browser),
    }


def address(route: str, lab: Lab, account: str = "lab") -> str:
    noun = re.search(r"(\w+)/<\w+:pk>", route)
    pk = str(row_of(lab, noun[1]).pk) if noun else ""
    return "/v1/" + re.sub(r"<\w+:pk>", pk, route.replace("<slug:account>", account))


def body_for(view: View, lab: Lab) -> dict[str, Any] | None:
    """Return the request body for routes where the URL doesn't determine the operation."""
    if view is api_operations.create_operation:
        return {"kind": "create_image", "manifest": lab.manifest.pk, "registry": lab.registry.name}
    return None


def permission_of(view: View) -> Permission:
    if view is api_operations.create_operation:
        return Permission.CREATE_IMAGE
    return view.permission  # type: ignore[attr-defined]


def said(answer: Any) -> Any:
    """Return the error of a response, after checking its format."""
    body = json.loads(answer.content)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "fields"}
    assert body["error"]["message"]
    return body["error"]


def test_every_method_of_every_route_names_a_permission() -> None:
    for route, methods in ROUTES.items():
        for method, view in methods.items():
            permission = view.permission  # type: ignore[attr-defined]
            assert permission == ANY_TOKEN or isinstance(permission, Permission), (route, method)
            assert permission != ANY_TOKEN or "<slug:account>" not in route, (route, method)
            assert method == "GET" or permission != ANY_TOKEN, (route, method)


def test_site_routes_require_an_administrators_token_for_the_whole_site(
    lab: Lab, programs: dict[str, Program], record: Any
) -> None:
    ada = get_user_model().objects.get(username="ada")
    narrow = {"for one account": token_of(ada, account=lab.account), "reading": token_of(ada, ApiToken.Scope.READ)}
    everybody = {**programs, **{name: Program(token) for name, token in narrow.items()}}
    for route, method in OF_THE_SITE:
        for who in (*RANKS, *READERS, "stranger", *narrow):
            answer = everybody[who].send(method, address(route, lab), {})
            record["requests"] = record.get("requests", 0) + 1
            if who == "admin" or (who == "reading" and method == "GET"):
                assert answer.status_code in {200, 422}, (route, method, answer.content)
            else:
                assert answer.status_code == 403, (route, method, who)
                said(answer)


@pytest.mark.parametrize("who", DEAD)
def test_every_route_and_method_requires_a_valid_token(
    who: str, lab: Lab, programs: dict[str, Program], record: Any
) -> None:
    query = f"?token={token_of(person('otto'))}&access_token=x" if who == "cookie and address" else ""
    for route, method in [*WALK, ("no/such/", "GET"), ("accounts", "POST")]:
        answer = programs[who].send(method, f"{address(route, lab)}{query}")
        assert answer.status_code == 401, (route, method)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        error = said(answer)
        assert "lab" not in error["message"]
        record["requests"] = record.get("requests", 0) + 1
    if who == "of the mms":
        assert "MMS token" in error["message"]
    assert not AuditEntry.objects.exists()


def test_unsupported_methods_are_rejected_with_the_supported_ones(
    lab: Lab, programs: dict[str, Program], record: Any
) -> None:
    for route, method in WALK:
        if method not in ROUTES[route]:
            answer = programs["admin"].send(method, address(route, lab))
            assert answer.status_code == 405, (route, method)
            assert answer.headers["Allow"] == ", ".join(sorted(ROUTES[route]))
            assert said(answer)["code"] == "MethodNotAllowed"
            record["requests"] = record.get("requests", 0) + 1


@pytest.mark.parametrize("who", ["stranger", "elsewhere"])
def test_an_account_outside_the_tokens_scope_is_not_found(
    who: str, lab: Lab, programs: dict[str, Program], record: Any
) -> None:
    for route, method in OF_AN_ACCOUNT:
        body = body_for(ROUTES[route][method], lab)
        there = programs[who].send(method, address(route, lab), body)
        nowhere = programs[who].send(method, address(route, lab, "no-such"), body)
        assert there.status_code == nowhere.status_code == 404, (route, method)
        assert there.content == nowhere.content
        assert dict(there.items()) == dict(nowhere.items())
        record["requests"] = record.get("requests", 0) + 2
    assert programs[who].get("/v1/accounts/").json()["accounts"][0]["name"] == "elsewhere"
    assert "lab" not in programs[who].get("/v1/accounts/").content.decode()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("who", [*RANKS, "reader"])
def test_a_token_has_its_owners_permissions_within_its_scope(
    who: str, lab: Lab, programs: dict[str, Program], record: Any
) -> None:
    rank, reads = RANKS.get(who, 3), who == "reader"
    for route, method in OF_AN_ACCOUNT:
        view = ROUTES[route][method]
        answer = programs[who].send(method, address(route, lab), body_for(view, lab))
        permission = permission_of(view)
        record["requests"] = record.get("requests", 0) + 1
        if rank < required_level(permission):
            assert answer.status_code == 403, (route, method)
            assert f"“{required_role(permission)}”" in said(answer)["message"]
        elif reads and method != "GET" and permission != Permission.SEE:
            assert answer.status_code == 403, (route, method)
            assert "scope “write”" in said(answer)["message"]
        else:
            assert answer.status_code not in {401, 403, 404, 405}, (route, method, answer.content)
            assert answer.status_code < 500
        assert "no-store" in answer.headers["Cache-Control"]


def test_the_audit_log_requires_the_operator_role_in_any_account(lab: Lab, programs: dict[str, Program]) -> None:
    for who in (*RANKS, *READERS, "stranger"):
        answer = programs[who].get("/v1/audit/")
        assert answer.status_code == (403 if who in {"viewer", "scientist"} else 200), who


def test_a_removed_permission_ends_immediately(lab: Lab, programs: dict[str, Program]) -> None:
    path = f"/v1/accounts/lab/assets/{lab.asset.pk}/"
    assert programs["scientist"].get(path).status_code == 200
    person("sam").memberships.all().delete()
    assert programs["scientist"].get(path).status_code == 404
    person("otto").memberships.filter(account_id=lab.account.pk).update(role=Role.VIEWER)
    assert programs["operator"].post("/v1/accounts/lab/operations/", {"kind": "create_image"}).status_code == 403


def test_resources_of_another_account_are_not_found_through_your_own(lab: Lab, programs: dict[str, Program]) -> None:
    for noun in ("model", "asset", "manifest", "image", "service", "operation"):
        pk = getattr(lab, noun).pk
        assert programs["stranger"].get(f"/v1/accounts/elsewhere/{noun}s/{pk}/").status_code == 404
    wish = {"kind": "create_image", "manifest": lab.manifest.pk, "registry": lab.registry.pk}
    error = said(programs["stranger"].post("/v1/accounts/elsewhere/operations/", wish))
    assert set(error["fields"]) == {"manifest", "registry"}
    assert lab.registry.name not in error["message"]
    wish = {"kind": "delete_service", "service": lab.service.pk}
    assert set(said(programs["stranger"].post("/v1/accounts/elsewhere/operations/", wish))["fields"]) == {"service"}


def test_a_cookie_beside_a_token_adds_no_permission(lab: Lab, programs: dict[str, Program]) -> None:
    both = Program(programs["stranger"].token, programs["cookie"].client)
    assert both.get("/v1/accounts/lab/").status_code == 404


def test_a_data_scientist_cannot_delete_services_of_other_users(lab: Lab, programs: dict[str, Program]) -> None:
    wish = {"kind": "delete_service", "service": "iris-live"}
    refused = programs["scientist"].post("/v1/accounts/lab/operations/", wish)
    assert refused.status_code == 403
    assert "“Operator”" in said(refused)["message"]
    assert programs["operator"].post("/v1/accounts/lab/operations/", wish).status_code == 202


@pytest.mark.parametrize("secret", ["registry", "kube", "scoring", "server"])
def test_no_response_contains_a_secret(secret: str, lab: Lab, programs: dict[str, Program]) -> None:
    HostingAccount.objects.filter(pk=lab.account.pk).update(token="the-server-token")
    texts: dict[str, Callable[[], str]] = {
        "registry": lambda: str(lab.registry.password),
        "kube": lambda: str(lab.cluster.kube_config),
        "scoring": lambda: str(lab.service.scoring_key),
        "server": lambda: "the-server-token",
    }
    for route, method in OF_AN_ACCOUNT:
        if not route.endswith("/key/"):
            answer = programs["admin"].send(method, address(route, lab), body_for(ROUTES[route][method], lab))
            assert texts[secret]() not in answer.content.decode(), route


def test_only_operators_can_act_in_production(lab: Lab, programs: dict[str, Program]) -> None:
    lab.cluster.production = True
    lab.cluster.save()
    newer = make_image(lab.manifest)
    update = {"kind": "update_service", "service": lab.service.pk, "image": newer.pk}
    create = {"kind": "create_service", "name": "second", "image": newer.pk, "cluster": "this machine"}
    for wish in (update, create):
        before = Operation.objects.count()
        refused = programs["scientist"].post("/v1/accounts/lab/operations/", wish)
        assert refused.status_code in {403, 422}, wish
        assert Operation.objects.count() == before
        assert programs["operator"].post("/v1/accounts/lab/operations/", wish).status_code == 202
