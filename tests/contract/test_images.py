"""Create image, get images, and the operation behind it (the reference: "Create Image", "Get Images")."""

import uuid
from typing import Any

import pytest

from tests.contract.server import Server, image_body, targets


def test_creating_an_image_returns_an_operation_to_poll(server: Server, buildable: dict[str, Any]) -> None:
    answer = server.send("POST", "images", image_body(buildable["id"]))
    assert answer.status_code == 202
    assert answer.content == b""
    operation_id = answer.headers["x-ms-request-id"]
    location = answer.headers["Operation-Location"]
    assert location == f"{server.url}{server.path}/operations/{operation_id}"
    operation = server.send("GET", f"operations/{operation_id}").json()
    assert operation["id"] == operation_id
    assert operation["operationType"] == "Image"
    assert operation["createdTime"]
    assert server.finished(answer)["endTime"]


def test_a_built_image_is_described(server: Server, image: dict[str, Any], buildable: dict[str, Any]) -> None:
    uuid.UUID(image["id"])
    assert image["imageType"] == "Docker"
    assert image["registryInfo"]["user"] == "nobody"
    assert image["registryInfo"]["location"] == "oci://local"
    assert image["manifestId"] == buildable["id"]
    assert image["digest"].startswith("sha256:")
    for path in ("images", "images/"):
        assert image in server.send("GET", path).json()


def test_the_registry_password_is_never_returned_in_plain_text(server: Server, image: dict[str, Any]) -> None:
    for path in (f"images/{image['id']}", "images"):
        assert "hidden-word" not in server.send("GET", path).text


def test_images_are_listed_by_manifest_and_by_model(
    server: Server, image: dict[str, Any], buildable: dict[str, Any]
) -> None:
    by_manifest = server.send("GET", "images", manifestId=buildable["id"]).json()
    by_model = server.send("GET", "images", modelId=buildable["modelIds"][0]).json()
    assert image["id"] in [found["id"] for found in by_manifest]
    assert image["id"] in [found["id"] for found in by_model]
    assert server.send("GET", "images", manifestId=str(uuid.uuid4())).json() == []
    assert server.send("GET", "images", modelId=str(uuid.uuid4())).json() == []


def test_a_failed_build_reports_the_failure_with_the_end_of_its_log(server: Server, files: str) -> None:
    model = server.model(url=f"{files}/nothing-here.bin")
    assets = [{"id": "score", "url": f"{files}/score.py", "mimeType": "text/plain"}]
    manifest = server.manifest(modelIds=[model["id"]], assets=assets)
    accepted = server.send("POST", "images", image_body(manifest["id"]))
    operation = server.finished(accepted)
    assert operation["state"] == "Failed"
    assert operation["endTime"]
    error = operation["error"]
    assert error["code"]
    assert "404" in error["message"]
    assert error["details"]
    image_id = operation["resourceLocation"].rsplit("/", 1)[1]
    assert server.send("GET", f"images/{image_id}").status_code == 404


def test_the_build_log_can_be_read_in_parts(server: Server, buildable: dict[str, Any]) -> None:
    accepted = server.send("POST", "images", image_body(buildable["id"]))
    server.finished(accepted)
    path = f"operations/{accepted.headers['x-ms-request-id']}/log"
    whole = server.send("GET", path)
    assert whole.status_code == 200
    assert whole.headers["content-type"].startswith("text/plain")
    assert whole.text.strip()
    position, pieces = "0", ""
    while piece := server.send("GET", path, after=position, limit="40"):
        if not piece.text:
            break
        pieces, position = pieces + piece.text, piece.headers["X-Log-Position"]
    assert pieces == whole.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"manifestId": str(uuid.uuid4())}, "manifestId"),
        ({"manifestId": "no-guid"}, "manifestId"),
        ({"manifestId": None}, "manifestId"),
        ({"manifestId": 3}, "manifestId"),
        ({"imageType": "WebAssembly"}, "imageType"),
        ({"imageType": None}, "imageType"),
        ({"registryInfo": None}, "registryInfo"),
        ({"registryInfo": {"user": "u", "location": "oci://local"}}, "registryInfo.password"),
        ({"registryInfo": {"password": "u", "location": "oci://local"}}, "registryInfo.user"),
        ({"registryInfo": {"user": "u", "password": "p", "location": "no registry"}}, "registryInfo.location"),
        ({"registryInfo": {"user": "u", "password": "p", "location": "oci://elsewhere"}}, "registryInfo.location"),
        ({"registryInfo": "local"}, "registryInfo"),
        ({"description": "d" * 513}, "description"),
    ],
)
def test_an_invalid_field_is_named(server: Server, change: dict[str, object], named: str) -> None:
    answer = server.send("POST", "images", {**image_body(server.manifest()["id"]), **change})
    assert answer.status_code == 400
    assert targets(answer) == {named}


@pytest.mark.parametrize("runtime", ["CNTKPython", "TLC", "SparkPython"])
def test_an_unavailable_runtime_is_rejected_by_name_before_a_build(
    server: Server, own_site: object, runtime: str
) -> None:
    if own_site is None:
        pytest.skip("another server may have this runtime")
    manifest = server.manifest(targetRuntime={"runtimeType": runtime})
    answer = server.send("POST", "images", image_body(manifest["id"]))
    assert answer.status_code == 400
    assert runtime in answer.json()["error"]["message"]


def test_manifests_of_another_account_are_not_found(server: Server, other_account: Server) -> None:
    foreign = other_account.manifest()
    assert server.send("POST", "images", image_body(foreign["id"])).status_code == 400


def test_an_unknown_image_is_404(server: Server) -> None:
    assert server.send("GET", f"images/{uuid.uuid4()}").status_code == 404
