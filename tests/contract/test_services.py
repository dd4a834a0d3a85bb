"""Create, get, list, update and delete services; keys and logs (extensions: docs/reference/mms-api.md)."""

import time
import uuid
from typing import Any

import pytest
import requests

from tests.contract.server import KUBE_CONFIG, Server, image_body, service_body, targets

pytestmark = pytest.mark.slow


def score(service: dict[str, Any], key: str) -> requests.Response:
    return requests.post(service["scoringUri"], json=[1, 2], headers={"Authorization": f"Bearer {key}"}, timeout=30)


def test_creating_a_service_returns_an_operation_to_poll(server: Server, image: dict[str, Any]) -> None:
    answer = server.send("POST", "services", service_body(image["id"]))
    assert answer.status_code == 202
    assert answer.content == b""
    operation_id = answer.headers["x-ms-request-id"]
    assert answer.headers["Operation-Location"].endswith(f"/operations/{operation_id}")
    operation = server.finished(answer)
    assert operation["operationType"] == "Service"
    assert operation["state"] == "Succeeded", operation
    location = operation["resourceLocation"]
    assert requests.get(location, headers={"Authorization": f"Bearer {server.token}"}, timeout=30).status_code == 200
    assert server.send("DELETE", f"services/{location.rsplit('/', 1)[1]}").status_code == 200


def test_a_running_service_is_described(server: Server, service: dict[str, Any], image: dict[str, Any]) -> None:
    uuid.UUID(service["id"])
    assert service["imageId"] == image["id"]
    assert service["state"] == "Succeeded"
    assert service["createdAt"] <= service["updatedAt"]
    for path in ("services", "services/"):
        assert service["id"] in [listed["id"] for listed in server.send("GET", path).json()]


def test_the_extensions_contain_its_address_and_health(server: Server, service: dict[str, Any]) -> None:
    assert service["image"] == {"id": service["imageId"]}
    assert service["scoringUri"].startswith("http")
    assert service["health"] == "healthy"
    assert service["revision"] == 1
    assert service["revisions"][0]["state"] == "active"
    assert service["limits"]["memoryBytes"] == 2 * 1024**3
    assert set(service["limits"]) == {"memoryBytes", "temporaryBytes", "tasks", "cpus"}


def test_a_service_answers_only_with_its_keys(server: Server, service: dict[str, Any]) -> None:
    keys = server.send("GET", f"services/{service['id']}/keys").json()
    for key in (keys["primaryKey"], keys["secondaryKey"]):
        answer = score(service, key)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"word": "hello", "sent": [1, 2]}
    assert score(service, "another").status_code == 401


@pytest.mark.parametrize("body", [None, {"keyType": "Primary"}, {"keyType": "Secondary"}])
def test_a_replaced_key_stops_working(server: Server, service: dict[str, Any], body: dict[str, str] | None) -> None:
    path = f"services/{service['id']}"
    before = server.send("GET", f"{path}/keys").json()
    after = server.send("POST", f"{path}/regenerateKeys", body).json()
    replaced = {"Primary": {"primaryKey"}, "Secondary": {"secondaryKey"}}.get(
        body["keyType"] if body else "", {"primaryKey", "secondaryKey"}
    )
    assert {name for name in before if before[name] != after[name]} == replaced
    assert server.send("GET", f"{path}/keys").json() == after
    time.sleep(1.2)  # a gateway may keep a route for a second
    for name in before:
        assert score(service, after[name]).status_code == 200
        assert score(service, before[name]).status_code == (401 if name in replaced else 200)


def test_an_unknown_kind_of_key_is_rejected(server: Server, service: dict[str, Any]) -> None:
    answer = server.send("POST", f"services/{service['id']}/regenerateKeys", {"keyType": "Third"})
    assert answer.status_code == 400
    assert targets(answer) == {"keyType"}


def test_the_logs_of_a_revision_can_be_read(server: Server, service: dict[str, Any]) -> None:
    answer = server.send("GET", f"services/{service['id']}/logs", revision="1")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert int(answer.headers["X-Log-Position"]) >= 0
    assert server.send("GET", f"services/{service['id']}/logs", revision="99").status_code == 404
    assert server.send("GET", f"services/{service['id']}/logs", after="-1").status_code == 400


def test_an_update_by_manifest_runs_its_newest_image(
    server: Server, service: dict[str, Any], buildable: dict[str, Any]
) -> None:
    built = server.finished(server.send("POST", "images", image_body(buildable["id"])))
    newest = built["resourceLocation"].rsplit("/", 1)[1]
    body = {"manifestId": buildable["id"], "acrImagePullSecret": "local"}
    accepted = server.send("PUT", f"services/{service['id']}", body)
    assert accepted.headers["Operation-Location"].endswith(accepted.headers["x-ms-request-id"])
    operation = server.finished(accepted)
    assert operation["state"] == "Succeeded", operation
    assert operation["operationType"] == "Service"
    assert operation["resourceLocation"].endswith(service["id"])
    updated = server.send("GET", f"services/{service['id']}").json()
    assert updated["imageId"] == newest
    assert updated["updatedAt"] > service["updatedAt"]
    assert updated["revision"] == service["revision"] + 1


def test_an_image_id_in_an_update_takes_precedence_over_the_manifest(
    server: Server, service: dict[str, Any], image: dict[str, Any], buildable: dict[str, Any]
) -> None:
    body = {"manifestId": buildable["id"], "imageId": image["id"], "acrImagePullSecret": "local"}
    operation = server.finished(server.send("PUT", f"services/{service['id']}", body))
    assert operation["state"] == "Succeeded", operation
    assert server.send("GET", f"services/{service['id']}").json()["imageId"] == image["id"]


def test_a_second_operation_on_a_service_is_rejected_and_names_the_first(
    server: Server, service: dict[str, Any], image: dict[str, Any]
) -> None:
    body = {"imageId": image["id"], "acrImagePullSecret": "local"}
    first = server.send("PUT", f"services/{service['id']}", body)
    second = server.send("PUT", f"services/{service['id']}", body)
    third = server.send("DELETE", f"services/{service['id']}")
    for answer in (second, third):
        assert answer.status_code == 409
        assert first.headers["x-ms-request-id"] in answer.json()["error"]["message"]
    assert server.finished(first)["state"] == "Succeeded"


def test_a_failing_driver_fails_the_update_with_its_log_and_the_old_revision_remains(
    server: Server, service: dict[str, Any], files: str
) -> None:
    model = server.model(url=f"{files}/word.txt")
    assets = [{"id": "score", "url": f"{files}/broken.py", "mimeType": "text/plain"}]
    manifest = server.manifest(modelIds=[model["id"]], assets=assets)
    assert server.finished(server.send("POST", "images", image_body(manifest["id"])))["state"] == "Succeeded"
    before = server.send("GET", f"services/{service['id']}").json()
    body = {"manifestId": manifest["id"], "acrImagePullSecret": "local"}
    operation = server.finished(server.send("PUT", f"services/{service['id']}", body))
    assert operation["state"] == "Failed"
    assert "this driver never starts" in str(operation["error"])
    after = server.send("GET", f"services/{service['id']}").json()
    assert (after["state"], after["imageId"]) == ("Succeeded", before["imageId"])
    key = server.send("GET", f"services/{service['id']}/keys").json()["primaryKey"]
    assert score(service, key).status_code == 200


def test_a_deleted_service_stops_answering_and_is_not_found(server: Server, image: dict[str, Any]) -> None:
    body = service_body(image["id"])
    operation = server.finished(server.send("POST", "services", body))
    service = server.send("GET", f"services/{operation['resourceLocation'].rsplit('/', 1)[1]}").json()
    key = server.send("GET", f"services/{service['id']}/keys").json()["primaryKey"]
    answer = server.send("DELETE", f"services/{service['id']}")
    assert answer.status_code == 200
    assert answer.content == b""
    uuid.UUID(answer.headers["x-ms-request-id"])
    time.sleep(1.2)  # a gateway may keep a route for a second
    assert score(service, key).status_code == 404
    for path in ("", "/keys", "/logs"):
        assert server.send("GET", f"services/{service['id']}{path}").status_code == 404
    assert server.send("DELETE", f"services/{service['id']}").status_code == 404
    again = server.finished(server.send("POST", "services", body))
    assert again["state"] == "Succeeded", "the name must be available again"
    assert server.send("DELETE", f"services/{again['resourceLocation'].rsplit('/', 1)[1]}").status_code == 200


def test_a_name_in_use_is_409(server: Server, service: dict[str, Any], image: dict[str, Any]) -> None:
    answer = server.send("POST", "services", {**service_body(image["id"]), "name": service["name"]})
    assert answer.status_code == 409
    assert targets(answer) == {"name"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"imageId": str(uuid.uuid4())}, "imageId"),
        ({"imageId": "no-guid"}, "imageId"),
        ({"imageId": None}, "imageId"),
        ({"name": None}, "name"),
        ({"name": "two words"}, "name"),
        ({"name": "n" * 64}, "name"),
        ({"name": "../x"}, "name"),
        ({"kubeConfig": None}, "kubeConfig"),
        ({"kubeConfig": {}}, "kubeConfig"),
        ({"kubeConfig": "no kubeconfig"}, "kubeConfig"),
        ({"kubeConfig": "a: &a [*a]"}, "kubeConfig"),
        ({"kubeConfig": "[" * 2000}, "kubeConfig"),
        ({"kubeConfig": "a: b\n" * 20_000}, "kubeConfig"),
        ({"acrImagePullSecret": None}, "acrImagePullSecret"),
        ({"acrImagePullSecret": 4}, "acrImagePullSecret"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_an_invalid_field_is_named(
    server: Server, image: dict[str, Any], change: dict[str, object], named: str
) -> None:
    answer = server.send("POST", "services", {**service_body(image["id"]), **change})
    assert answer.status_code == 400, answer.text
    assert targets(answer) == {named}


def test_an_unsupported_cluster_is_rejected_by_name(server: Server, own_site: object, image: dict[str, Any]) -> None:
    if own_site is None:
        pytest.skip("another server may reach clusters")
    elsewhere = KUBE_CONFIG.replace("process://local", "https://cluster.example:6443")
    answer = server.send("POST", "services", {**service_body(image["id"]), "kubeConfig": elsewhere})
    assert answer.status_code == 400
    assert targets(answer) == {"kubeConfig"}
    assert "cluster.example" in answer.json()["error"]["message"]


def test_an_unbuilt_image_is_409(server: Server, service: dict[str, Any], files: str) -> None:
    manifest = server.manifest()
    body = {"manifestId": manifest["id"], "acrImagePullSecret": "local"}
    assert server.send("PUT", f"services/{service['id']}", body).status_code == 409
    model = server.model(url=f"{files}/nothing-here")
    failing = server.manifest(modelIds=[model["id"]])
    operation = server.finished(server.send("POST", "images", image_body(failing["id"])))
    image_id = operation["resourceLocation"].rsplit("/", 1)[1]
    assert server.send("POST", "services", service_body(image_id)).status_code == 409


def test_an_update_requires_an_image_or_manifest(server: Server, service: dict[str, Any]) -> None:
    path = f"services/{service['id']}"
    assert server.send("PUT", path, {"acrImagePullSecret": "local"}).status_code == 400
    assert targets(server.send("PUT", path, {"manifestId": str(uuid.uuid4()), "acrImagePullSecret": "x"})) == {
        "manifestId"
    }
    assert targets(server.send("PUT", path, {"manifestId": str(uuid.uuid4())})) == {"acrImagePullSecret"}


def test_services_are_listed_by_name_and_image(server: Server, service: dict[str, Any]) -> None:
    for query in ({"name": service["name"]}, {"manifestId": service["manifestId"]}):
        assert service["id"] in [found["id"] for found in server.send("GET", "services", **query).json()]
    assert server.send("GET", "services", imageId=str(uuid.uuid4())).json() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_service_is_404(server: Server, method: str) -> None:
    body = {"manifestId": str(uuid.uuid4()), "acrImagePullSecret": "local"}
    answer = server.send(method, f"services/{uuid.uuid4()}", body if method == "PUT" else None)
    assert answer.status_code == 404
