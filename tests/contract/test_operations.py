"""Get async operation status (the reference), cancel and log (docs/reference/mms-api.md)."""

import time
import uuid
from typing import Any

import pytest
import requests

from tests.contract.server import Server, as_object, image_body
from tests.support.clock import quiet_seconds


@pytest.fixture
def slow_build(server: Server, files: str) -> requests.Response:
    """Start a build whose model takes a minute to download. Return the response."""
    model = server.model(url=f"{files}/slow")
    assets = [{"id": "score", "url": f"{files}/score.py", "mimeType": "text/plain"}]
    return server.send("POST", "images", image_body(server.manifest(modelIds=[model["id"]], assets=assets)["id"]))


def operation_of(server: Server, accepted: requests.Response) -> dict[str, Any]:
    return as_object(server.send("GET", f"operations/{accepted.headers['x-ms-request-id']}"))


def wait_for(server: Server, accepted: requests.Response, state: str) -> dict[str, Any]:
    until = time.monotonic() + 20
    while (operation := operation_of(server, accepted))["state"] != state:
        assert time.monotonic() < until, operation
        time.sleep(0.1)
    return operation


@pytest.mark.slow
def test_a_running_build_returns_200_and_can_be_canceled(server: Server, slow_build: requests.Response) -> None:
    path = f"operations/{slow_build.headers['x-ms-request-id']}"
    running = wait_for(server, slow_build, "Running")
    assert running["endTime"] is None
    assert running["error"] is None
    answer = server.send("DELETE", path)
    assert answer.status_code == 202
    assert answer.headers["x-ms-request-id"] == running["id"]
    started = time.monotonic()
    canceled = server.finished(slow_build)
    assert canceled["state"] == "Canceled"
    assert canceled["endTime"]
    assert quiet_seconds(time.monotonic() - started) < 10
    assert server.send("DELETE", path).status_code == 409


@pytest.mark.slow
def test_a_canceled_build_leaves_no_process_and_no_file(
    server: Server, own_site: Any, slow_build: requests.Response
) -> None:
    if own_site is None:
        pytest.skip("needs access to the server's processes")
    wait_for(server, slow_build, "Running")
    server.send("DELETE", f"operations/{slow_build.headers['x-ms-request-id']}")
    server.finished(slow_build)
    assert not [process for process in own_site.processes() if "mms.images.build" in process.cmdline()]
    assert not list((own_site.data / "tmp").glob("build-*"))


def test_an_unknown_operation_is_404(server: Server) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/log")):
        assert server.send(method, f"operations/{uuid.uuid4()}{path}").status_code == 404


def test_operations_of_another_account_are_not_found(
    server: Server, other_account: Server, slow_build: requests.Response
) -> None:
    id = slow_build.headers["x-ms-request-id"]
    assert other_account.send("GET", f"operations/{id}").status_code == 404
    assert other_account.send("DELETE", f"operations/{id}").status_code == 404
    assert server.send("DELETE", f"operations/{id}").status_code == 202


# --- the status of several operations (an extension) --------------------------------------------------------------


@pytest.fixture(scope="module")
def queued(server: Server, buildable: dict[str, Any]) -> list[str]:
    """Return the ids of three operations."""
    answers = [server.send("POST", "images", image_body(buildable["id"])) for _ in range(3)]
    return [answer.headers["x-ms-request-id"] for answer in answers]


def test_several_statuses_are_returned_in_the_requested_order(server: Server, queued: list[str]) -> None:
    wanted = [queued[2], queued[0], queued[2], queued[1]]
    answer = server.send("GET", "operations", ids=",".join(wanted))
    assert answer.status_code == 200
    assert [operation["id"] for operation in answer.json()] == [queued[2], queued[0], queued[1]]
    one = as_object(server.send("GET", f"operations/{queued[0]}"))
    assert answer.json()[1].keys() == one.keys()
    assert answer.json()[1]["resourceLocation"] == one["resourceLocation"]


def test_unknown_and_foreign_operations_are_left_out(server: Server, other_account: Server, queued: list[str]) -> None:
    answer = server.send("GET", "operations", ids=f"{uuid.uuid4()},{queued[0]}")
    assert [operation["id"] for operation in answer.json()] == [queued[0]]
    assert other_account.send("GET", "operations", ids=",".join(queued)).json() == []


def test_the_header_announces_the_status_of_several_operations(server: Server) -> None:
    for answer in (server.send("GET", "models"), server.send("GET", "operations"), server.send("GET", "nothing")):
        assert "operation-ids" in [name.strip() for name in answer.headers["x-mms-extensions"].split(",")]


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        (None, "Required"),
        ("", "Required"),
        ("nothing", "Invalid"),
        (f"{uuid.uuid4()},", "Invalid"),
        (f"{uuid.uuid4()}, {uuid.uuid4()}", "Invalid"),
        (",".join(str(uuid.uuid4()) for _ in range(201)), "TooLong"),
    ],
    ids=["missing", "empty", "no id", "trailing comma", "a space", "201 ids"],
)
def test_invalid_ids_are_rejected_and_named(server: Server, ids: str | None, code: str) -> None:
    answer = server.send("GET", "operations", **({} if ids is None else {"ids": ids}))
    assert answer.status_code == 400
    [detail] = answer.json()["error"]["details"]
    assert (detail["target"], detail["code"]) == ("ids", code)


def test_two_hundred_ids_fit_into_a_request(server: Server, queued: list[str]) -> None:
    ids = [str(uuid.uuid4()) for _ in range(199)] + queued[:1]
    answer = server.send("GET", "operations", ids=",".join(ids))
    assert answer.status_code == 200
    assert [operation["id"] for operation in answer.json()] == queued[:1]


def test_several_statuses_need_a_token_and_can_be_read_with_a_read_only_one(
    server: Server, own_site: Any, queued: list[str]
) -> None:
    url = f"{server.url}{server.path}/operations?ids={queued[0]}"
    assert requests.get(url, timeout=30).status_code == 401
    assert server.send("POST", "operations", {}).status_code == 405
    if own_site is None:
        pytest.skip("needs a read-only token of the server")
    reader = own_site.manage("create_token", "--account", "local", "--scope", "read")
    assert requests.get(url, headers={"Authorization": f"Bearer {reader}"}, timeout=30).status_code == 200
