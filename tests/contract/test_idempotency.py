"""The same request sent again with the same x-ms-client-request-id has its effect once (docs/reference/mms-api.md)."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.server import API_VERSION, Server, image_body, service_body, targets

VERSION = {"api-version": API_VERSION}


@pytest.fixture(autouse=True)
def _only_where_it_is_offered(server: Server) -> None:
    if "idempotency" not in server.send("GET", "models").headers.get("x-mms-extensions", ""):
        pytest.skip("this server does not offer it")


def key() -> dict[str, str]:
    return {"x-ms-client-request-id": str(uuid.uuid4())}


def test_a_model_is_registered_once(server: Server) -> None:
    body = {"name": f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/x"}
    again = key()
    first, second = (server.raw("POST", "models", again, params=VERSION, json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert len(server.send("GET", "models", name=body["name"]).json()) == 1


def test_many_concurrent_requests_have_one_effect(server: Server) -> None:
    body = {"name": f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/x"}
    again = key()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.raw("POST", "models", again, params=VERSION, json=body), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["version"] for answer in answers} == {1}


def test_a_manifest_is_created_once(server: Server) -> None:
    body, again = server.manifest_body(), key()
    first, second = (server.raw("POST", "manifests", again, params=VERSION, json=body) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]


@pytest.mark.slow
def test_an_image_is_built_once(server: Server, buildable: dict[str, Any]) -> None:
    body, again = image_body(buildable["id"]), key()
    first, second = (server.raw("POST", "images", again, params=VERSION, json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["x-ms-request-id"] == second.headers["x-ms-request-id"]
    assert server.finished(first)["state"] == "Succeeded"


@pytest.mark.slow
def test_a_service_is_created_updated_and_deleted_once(server: Server, image: dict[str, Any]) -> None:
    create, update, delete = key(), key(), key()
    body = service_body(image["id"])
    first = server.raw("POST", "services", create, params=VERSION, json=body)
    second = server.raw("POST", "services", create, params=VERSION, json=body)
    assert first.headers["x-ms-request-id"] == second.headers["x-ms-request-id"]
    path = "services/" + server.finished(first)["resourceLocation"].rsplit("/", 1)[1]
    change = {"imageId": image["id"], "acrImagePullSecret": "local"}
    first = server.raw("PUT", path, update, params=VERSION, json=change)
    second = server.raw("PUT", path, update, params=VERSION, json=change)
    assert first.headers["x-ms-request-id"] == second.headers["x-ms-request-id"]
    server.finished(first)
    assert server.send("GET", path).json()["revision"] == 2
    assert [server.raw("DELETE", path, delete, params=VERSION).status_code for _ in range(2)] == [200, 200]


@pytest.mark.slow
def test_keys_are_regenerated_once(server: Server, service: dict[str, Any]) -> None:
    path, again = f"services/{service['id']}/regenerateKeys", key()
    first, second = (server.raw("POST", path, again, params=VERSION, json={}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert server.raw("POST", path, key(), params=VERSION, json={}).json() != first.json()


def test_the_same_id_for_something_else_is_409(server: Server) -> None:
    again = key()
    body = {"name": f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/x"}
    server.raw("POST", "models", again, params=VERSION, json=body)
    answer = server.raw("POST", "models", again, params=VERSION, json={**body, "description": "other"})
    assert answer.status_code == 409
    assert targets(answer) == {"x-ms-client-request-id"}


def test_the_id_is_returned_and_an_invalid_one_is_named(server: Server) -> None:
    again = key()
    assert server.raw("GET", "models", again).headers["x-ms-client-request-id"] == again["x-ms-client-request-id"]
    answer = server.raw("GET", "models", {"x-ms-client-request-id": "x" * 101})
    assert answer.status_code == 400
    assert targets(answer) == {"x-ms-client-request-id"}


def test_two_accounts_may_use_the_same_id(server: Server, other_account: Server) -> None:
    again = key()
    body = {"name": f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/x"}
    ids = {s.raw("POST", "models", again, params=VERSION, json=body).json()["id"] for s in (server, other_account)}
    assert len(ids) == 2
