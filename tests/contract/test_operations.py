"""Get async operation status (the reference), cancel and log (docs/reference/mms-api.md)."""

import time
import uuid
from typing import Any

import pytest
import requests

from tests.contract.server import Server, as_object, image_body


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
    assert time.monotonic() - started < 10
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
