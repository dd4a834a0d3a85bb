"""Rules for every request: token, account, path, method, version, size, and the format of errors."""

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.contract.server import API_VERSION, UNKNOWN_ID, Server, image_body, targets

NOUNS = ["models", "manifests", "images", "services"]
ALL = [*NOUNS, "operations"] + [f"{noun}/{UNKNOWN_ID}" for noun in [*NOUNS, "operations"]]


def assert_is_error(answer: requests.Response, status: int) -> None:
    """Assert that the response has this status and an error object in the common format."""
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert error["code"]
    assert error["message"]
    assert isinstance(error["details"], list)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic bG9jYWw6bG9jYWw=", "Bearer ü"]
)
def test_without_a_valid_token_the_status_is_401(server: Server, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    url = f"{server.url}{server.path}/{path}"
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = requests.request(method, url, headers=headers, timeout=30)
        assert_is_error(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ALL)
def test_a_token_works_only_for_its_own_account(server: Server, other_account: Server, path: str) -> None:
    for foreign in (other_account.path, server.path.replace("/local", "/nobodys")):
        url = f"{server.url}{foreign}/{path}"
        answer = requests.get(url, headers={"Authorization": f"Bearer {server.token}"}, timeout=30)
        assert_is_error(answer, 403)


def test_accounts_do_not_see_each_others_resources(server: Server, other_account: Server) -> None:
    model, manifest = server.model(), server.manifest()
    assert_is_error(other_account.send("GET", f"models/{model['id']}"), 404)
    assert_is_error(other_account.send("GET", f"manifests/{manifest['id']}"), 404)
    assert model["id"] not in other_account.send("GET", "models").text
    assert other_account.model(model["name"])["version"] == 1


def test_every_response_has_a_unique_request_id(server: Server) -> None:
    answers = [
        server.send("GET", "models"),
        server.send("GET", "nothing"),
        server.send("POST", "models", {}),
        server.send("DELETE", "models"),
        requests.get(f"{server.url}{server.path}/models", timeout=30),
        requests.get(f"{server.url}/api/nowhere", timeout=30),
    ]
    ids = [uuid.UUID(answer.headers["x-ms-request-id"]) for answer in answers]
    assert len(set(ids)) == len(answers)


@pytest.mark.parametrize("path", ["", "nothing", "models/x/y", "models/x/y/z", "services/keys", "../../x"])
def test_an_unknown_path_is_404(server: Server, path: str) -> None:
    assert_is_error(server.send("GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "models"),
        ("PUT", "models"),
        ("PATCH", "services"),
        ("POST", f"images/{UNKNOWN_ID}"),
        ("OPTIONS", "models"),
    ],
)
def test_an_unsupported_method_is_405_and_lists_the_supported_ones(server: Server, method: str, path: str) -> None:
    answer = server.send(method, path)
    assert_is_error(answer, 405)
    assert "GET" in answer.headers["allow"]


def test_head_returns_the_headers_of_get_without_a_body(server: Server) -> None:
    answer = server.send("HEAD", "models")
    assert answer.status_code == 200
    assert answer.content == b""


def test_another_api_version_is_rejected_and_named(server: Server) -> None:
    answer = server.raw("GET", "models", params={"api-version": "2031-01-01"})
    assert_is_error(answer, 400)
    assert targets(answer) == {"api-version"}
    assert API_VERSION in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"NaN",
        b"\xff\xfe\x00",
        b'{"name": "\xff", "url": "http://a.example"}',
        b'{"name": "\\ud800", "url": "http://a.example"}',
        b'{"name": 1e400, "url": "http://a.example"}',
        b'{"name": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
)
@pytest.mark.parametrize("noun", NOUNS)
def test_a_body_that_is_not_a_json_object_is_400(server: Server, noun: str, body: bytes) -> None:
    answer = server.raw("POST", noun, params={"api-version": API_VERSION}, data=body)
    assert_is_error(answer, 400)


def test_the_error_for_invalid_json_mentions_json(server: Server) -> None:
    answer = server.raw("POST", "models", params={"api-version": API_VERSION}, data=b'{"name": "cut o')
    assert_is_error(answer, 400)
    assert "JSON" in answer.json()["error"]["message"]


def test_an_empty_object_names_every_required_field(server: Server) -> None:
    required = {
        "models": {"name", "url"},
        "manifests": {"modelType", "modelIds", "assets", "targetRuntime"},
        "images": {"manifestId", "imageType", "registryInfo"},
        "services": {"imageId", "name", "kubeConfig", "acrImagePullSecret"},
    }
    for noun, names in required.items():
        assert targets(server.send("POST", noun, {})) == names


@pytest.mark.parametrize("noun", NOUNS)
def test_a_huge_body_is_413(server: Server, noun: str) -> None:
    body = json.dumps({"name": "x" * 2_000_000}).encode()
    assert_is_error(server.raw("POST", noun, params={"api-version": API_VERSION}, data=body), 413)


def test_a_huge_body_of_unknown_length_is_not_read_completely(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2000):
            yield b" " * 65536

    try:
        answer = server.raw("POST", "models", params={"api-version": API_VERSION}, data=endless())
    except requests.ConnectionError:
        return  # the server closed the connection while we were still sending
    assert_is_error(answer, 413)


def test_without_a_token_no_body_is_read(server: Server) -> None:
    """The response arrives although no byte of the announced body was sent."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        head = f"POST {server.path}/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "query", ["name=%00", "tag=%00", "name=" + "x" * 5000, "name=" + "x" * 20_000, "%00=1&name=%ff"]
)
def test_an_unusual_query_causes_no_server_error(server: Server, query: str) -> None:
    answer = server.raw("GET", f"models?api-version={API_VERSION}&{query}")
    assert answer.status_code in {200, 400, 414}


@pytest.mark.parametrize(
    "host",
    [
        "evil.example/<script>",
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "127.0.0.1:evil",
        "127.0.0.1@evil.example",
        "localhost:80@evil.example",
        "evil.example#127.0.0.1",
        "[evil]",
        "",
    ],
)
def test_an_unknown_host_is_not_used_in_urls(server: Server, buildable: dict[str, Any], host: str) -> None:
    answer = server.raw("GET", f"operations/{uuid.uuid4()}", headers={"Host": host})
    assert "evil" not in answer.text
    accepted = server.raw("POST", "images", headers={"Host": host}, json=image_body(buildable["id"]))
    assert accepted.status_code == 202
    assert "evil" not in str(accepted.headers)
    assert accepted.headers["operation-location"].startswith(f"{server.url}/api/")
    server.send("DELETE", f"operations/{accepted.headers['x-ms-request-id']}")


def test_an_allowed_host_of_the_request_is_used_in_urls(server: Server, buildable: dict[str, Any]) -> None:
    port = urlsplit(server.url).port
    accepted = server.raw("POST", "images", headers={"Host": f"localhost:{port}"}, json=image_body(buildable["id"]))
    assert accepted.headers["operation-location"].startswith(f"http://localhost:{port}/api/")
    server.send("DELETE", f"operations/{accepted.headers['x-ms-request-id']}")


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "twice", "name": "once", "url": "http://a.example/x"}',
        '{"name": "twice", "url": "http://a.example/x", "url": "http://a.example/x"}',
        '{"name": "twice", "na\\u006de": "once", "url": "http://a.example/x"}',
    ],
)
def test_a_duplicate_field_is_rejected_and_named(server: Server, body: str) -> None:
    answer = server.raw("POST", "models", params={"api-version": API_VERSION}, data=body.encode())
    assert_is_error(answer, 400)
    assert targets(answer) <= {"name", "url"}
    assert "must not occur twice" in answer.json()["error"]["message"]
    assert server.send("GET", "models", name="twice").json() == []


def test_a_duplicate_parameter_is_rejected_and_named(server: Server) -> None:
    answer = server.raw("GET", f"models?api-version={API_VERSION}&name=a&name=b")
    assert_is_error(answer, 400)
    assert targets(answer) == {"name"}
