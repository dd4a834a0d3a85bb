"""Hostile requests to every route of the API: no 5xx, errors name the field, and refused requests store nothing."""

import json
import re
import uuid
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from dashboard.api.routes import METHODS, ROUTES
from dashboard.api.views.resources import RESOURCES
from dashboard.models import Role
from deployments.models import Service
from tests.support.hostile import TEXTS, VALUES, WORDS, add, counts, tried
from tests.support.lifecycle import present
from tests.support.people import Lab, make_lab
from tests.support.programs import Program, person, row_of, token_of
from tests.support.workshop import make_image

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
POSTS = sorted(route for route, methods in ROUTES.items() if "POST" in methods)
LISTS = sorted([*(f"accounts/<slug:account>/{noun}s/" for noun in RESOURCES), "people/", "audit/"])
PATHS = [(route, method) for route, methods in sorted(ROUTES.items()) if ":pk>" in route for method in methods]
CHANGES = [
    (route, method) for route, methods in sorted(ROUTES.items()) for method in methods if method not in {"GET", "POST"}
]
SERVER = {
    "base_url": "https://mms.example",
    "subscription": "s",
    "resource_group": "g",
    "hosting_account": "h",
    "sign_in": "entra",
    "tenant": "t.example",
    "client_id": "c",
    "scope": "s",
    "authority": "https://login.example",
    "client_secret": "planted-secret",
}
REGISTRY = {"name": "second", "location": "two.example/team", "user": "robot", "password": "planted-secret"}
# Administration: method and path, a valid body, and the status for it.
ADMINISTERING: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "add member": ("POST", "/v1/accounts/lab/members/", {"name": "nina", "role": "viewer"}, 201),
    "change member": ("PATCH", "/v1/accounts/lab/members/PK/", {"role": "operator"}, 200),
    "add registry": ("POST", "/v1/accounts/lab/registries/", REGISTRY, 201),
    "change registry": ("PATCH", "/v1/accounts/lab/registries/PK/", REGISTRY, 200),
    "change cluster": (
        "PATCH",
        "/v1/accounts/lab/clusters/PK/",
        {"name": "x", "pull_secret": "p", "production": True},
        200,
    ),
    "change server": ("PATCH", "/v1/accounts/lab/server/", SERVER, 200),
    "add person": ("POST", "/v1/people/", {"name": "nora"}, 201),
    "change person": ("PATCH", "/v1/people/PK/", {"do": "make_administrator"}, 200),
    "add account": ("POST", "/v1/accounts/", {"name": "new", **SERVER}, 201),
}
IDS = st.sampled_from([0, -1, 1, 2, 3, 10**6, 2**31, 2**63 - 1, 2**63, 10**30, "1", "x"])


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    lab = make_lab()
    Service.objects.update(scoring_uri="http://127.0.0.1:9/")  # where nothing listens
    return lab


@pytest.fixture
def other(lab: Lab) -> Lab:
    """Create another account, whose ids are tried in the first."""
    return make_lab("other")


@pytest.fixture
def program(lab: Lab) -> Program:
    return Program(token_of(person("otto", lab.account, Role.OPERATOR)))


@pytest.fixture
def admin(lab: Lab) -> Program:
    return Program(token_of(get_user_model().objects.create_superuser("ada")))


def good(kind: str, lab: Lab) -> dict[str, Any]:
    """Return a valid body."""
    fields: dict[str, dict[str, Any]] = {
        "register_model": {
            "name": "rose",
            "url": "https://a.example/x",
            "tags": ["a"],
            "unpack": True,
            "mime_type": "a/b",
        },
        "create_manifest": {
            "models": [lab.model.pk],
            "assets": [lab.asset.pk],
            "driver": lab.asset.pk,
            "runtime_type": "Python",
            "pip_requirements": "x",
            "conda_env_file": "a: 1",
            "description": "d",
        },
        "create_image": {"manifest": lab.manifest.pk, "registry": "our registry", "description": "d"},
        "create_service": {"name": "new", "image": lab.image.pk, "cluster": "this machine"},
        "update_service": {"service": lab.service.pk, "image": make_image(lab.manifest).pk},
        "delete_service": {"service": lab.service.pk},
    }
    return {"kind": kind, **fields[kind]}


def address(route: str, lab: Lab) -> str:
    noun = re.search(r"(\w+)/<\w+:pk>", route)
    pk = str(row_of(lab, noun[1]).pk) if noun else ""
    return "/v1/" + re.sub(r"<\w+:pk>", pk, route.replace("<slug:account>", lab.account.name))


def send(program: Program, method: str, url: str, body: Any, record: Any, **headers: str) -> Any:
    """Send the request, check the response, and roll back all changes."""
    with transaction.atomic():
        before = counts()
        answer = program.send(method, url, body, **headers)
        add(record, answer.status_code)
        assert answer.status_code < 500, answer.content
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["message"]
            assert counts() == before, error
            if answer.status_code == 422 and error["fields"]:
                assert all(texts and all(texts) for texts in error["fields"].values())
        transaction.set_rollback(True)
    return answer


@pytest.mark.parametrize(
    "kind", ["register_model", "create_manifest", "create_image", "create_service", "update_service", "delete_service"]
)
def test_any_value_in_any_field_of_any_kind(kind: str, lab: Lab, other: Lab, program: Program, record: Any) -> None:
    base, foreign = good(kind, lab), good(kind, other)
    ids = {name: st.just(value) for name, value in foreign.items() if name not in {"kind", "name"}}

    @tried(120)
    @given(data=st.data())
    def hostile(data: st.DataObject) -> None:
        body = dict(base)
        for name in data.draw(st.lists(st.sampled_from(sorted(base)) | TEXTS, min_size=1, max_size=3)):
            body[name] = data.draw(VALUES | IDS | st.lists(IDS, max_size=3) | ids.get(name, IDS))
        answer = send(program, "POST", "/v1/accounts/lab/operations/", json.dumps(body), record)
        if answer.status_code == 422:
            assert answer.json()["error"]["fields"], answer.content

    hostile()
    accepted = send(
        program,
        "POST",
        "/v1/accounts/lab/operations/",
        base if kind != "create_manifest" else {**base, "conda_env_file": ""},
        record,
    )
    assert accepted.status_code == 202, accepted.content


@pytest.mark.parametrize("name", ADMINISTERING)
def test_any_value_in_any_administration_field(name: str, lab: Lab, admin: Program, record: Any) -> None:
    method, url, base, done = ADMINISTERING[name]
    noun = name.partition(" ")[2]
    url = url.replace("PK", str(row_of(lab, "people" if noun == "person" else noun).pk) if "PK" in url else "")
    person("nina")

    @tried(80)
    @given(data=st.data())
    def hostile(data: st.DataObject) -> None:
        body = dict(base)
        for field in data.draw(st.lists(st.sampled_from(sorted(base)) | TEXTS, min_size=1, max_size=3)):
            body[field] = data.draw(VALUES | IDS)
        answer = send(admin, method, url, json.dumps(body), record)
        if answer.status_code == 422:
            assert answer.json()["error"]["fields"], answer.content
        assert "planted-secret" not in answer.content.decode()

    hostile()
    assert send(admin, method, url, base, record).status_code == done


@pytest.mark.parametrize("route", POSTS)
def test_any_body(route: str, lab: Lab, admin: Program, record: Any) -> None:
    program, url = admin, address(route, lab)

    @tried(60)
    @given(body=st.binary(max_size=200) | VALUES.map(json.dumps) | st.dictionaries(TEXTS, VALUES).map(json.dumps))
    def hostile(body: Any) -> None:
        send(program, "POST", url, body, record)

    hostile()
    for body in (
        "[" * 100_000,
        '{"a":' * 20_000,
        '{"kind": ' + "9" * 5000 + "}",
        '{"kind": "a", "kind": []}',
        "NaN",
        '"\\ud800"',
    ):
        assert send(program, "POST", url, body, record).status_code in {200, 202, 409, 422}
    assert send(program, "POST", url, b'{"a": "' + b"x" * 3_000_000 + b'"}', record).status_code == 413


def test_any_content_type(lab: Lab, program: Program, record: Any) -> None:
    @tried(60)
    @given(
        kind=st.sampled_from(
            [
                "text/plain",
                "multipart/form-data",
                "multipart/form-data; boundary=x",
                "a",
                "; ;",
                'application/json; charset="x',
            ]
        )
        | st.text(st.characters(min_codepoint=32, max_codepoint=126))
    )
    def hostile(kind: str) -> None:
        with transaction.atomic():
            before = counts()
            headers = {"Authorization": f"Bearer {program.token}"}
            answer = program.client.generic(
                "POST", "/v1/accounts/lab/assets/", "do=preview&name=x", kind, headers=headers
            )
            add(record, answer.status_code)
            assert answer.status_code in {415, 422}, (kind, answer.content)
            assert counts() == before
            transaction.set_rollback(True)

    hostile()


@pytest.mark.parametrize("route", LISTS)
def test_any_query(route: str, lab: Lab, admin: Program, record: Any) -> None:
    names = st.sampled_from(
        [
            "q",
            "q",
            "q",
            "q",
            "state",
            "sort",
            "page",
            "kind",
            "newest",
            "model",
            "manifest",
            "image",
            "service",
            "x",
            "since",
            "until",
            "actor",
        ]
    )

    @tried(80)
    @given(query=st.lists(st.tuples(names, WORDS.filter(lambda word: len(word) < 6000)), max_size=2))
    def hostile(query: list[tuple[str, str]]) -> None:
        text = "&".join(f"{name}={quote(value)}" for name, value in query)
        answer = send(admin, "GET", f"{address(route, lab)}?{text}", None, record)
        if answer.status_code == 422:
            assert set(answer.json()["error"]["fields"]) <= {name for name, _ in query}

    hostile()
    for raw in ("q=%ff%fe", "q=%ed%a0%80", "page=%00", "&&&=", "q" * 3000):
        assert send(admin, "GET", f"{address(route, lab)}?{raw}", None, record).status_code in {200, 422}


@pytest.mark.parametrize(("route", "method"), CHANGES)
def test_any_body_of_a_change(route: str, method: str, lab: Lab, admin: Program, record: Any) -> None:
    program, url = admin, address(route, lab)

    @tried(60)
    @given(body=st.binary(max_size=200) | VALUES.map(json.dumps) | st.dictionaries(TEXTS, VALUES).map(json.dumps))
    def hostile(body: Any) -> None:
        send(program, method, url, body, record)

    hostile()


@pytest.mark.parametrize(("route", "method"), PATHS)
def test_any_id_in_any_path(route: str, method: str, lab: Lab, other: Lab, admin: Program, record: Any) -> None:
    noun = present(re.search(r"(\w+)/<\w+:pk>", route))[1]
    ids = [
        row_of(other, noun).pk if noun != "people" else 10**6,
        0,
        2**63,
        10**30,
        uuid.UUID(int=0),
        "%00",
        "..",
        "%2e%2e",
        "²",
        "٣",
        "-1",
        "%ff",
        "a" * 2000,
    ]
    for pk in ids:
        url = "/v1/" + re.sub(r"<\w+:pk>", str(pk), route.replace("<slug:account>", "lab"))
        assert send(admin, method, url, {"do": "activate"} if noun == "people" else None, record).status_code == 404, pk


def test_any_authorization_header(lab: Lab, record: Any) -> None:
    @tried(120)
    @given(
        text=st.sampled_from(
            ["Bearer", "bearer  ", "Basic dXNlcjpwYXNz", "Bearer mms_x", "Bearer dash_", "Bearer " + "x" * 9000]
        )
        | st.text(st.characters(min_codepoint=32, max_codepoint=255))
    )
    def hostile(text: str) -> None:
        answer = Program().get("/v1/accounts/lab/", Authorization=text)
        add(record, answer.status_code)
        assert answer.status_code == 401, text

    hostile()


def test_any_idempotency_key(lab: Lab, program: Program, record: Any) -> None:
    body = good("create_image", lab)

    @tried(80)
    @given(key=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=300))
    def hostile(key: str) -> None:
        answer = send(program, "POST", "/v1/accounts/lab/operations/", body, record, Idempotency_Key=key)
        assert answer.status_code in {202, 422}

    hostile()


def test_any_path_and_method(lab: Lab, program: Program, record: Any) -> None:
    @tried(120)
    @given(path=TEXTS, method=st.sampled_from([*METHODS, "TRACE", "FOO"]))
    def hostile(path: str, method: str) -> None:
        answer = send(program, method, f"/v1/{quote(path[:2000])}", None, record)
        assert answer.status_code in {200, 404, 405}

    hostile()
