"""Compatibility with azure-cli-ml 0.1.0a20: no api-version, 200 for a new model, 204 for an unknown service."""

import uuid
from typing import Any

import pytest

from tests.contract.server import Server, image_body, service_body


def test_a_call_without_api_version_succeeds(server: Server) -> None:
    assert server.raw("GET", "models").status_code == 200


def test_registering_without_api_version_returns_200(server: Server) -> None:
    body = {
        "name": f"m-{uuid.uuid4().hex[:12]}",
        "tags": [],
        "description": "",
        "url": "http://models.example/x",
        "mimeType": "application/json",
        "unpack": False,
    }
    answer = server.raw("POST", "models", json=body)
    assert answer.status_code == 200
    assert {"id", "name", "version", "createdAt", "tags", "description", "url"} <= answer.json().keys()


def test_deleting_an_unknown_service_without_api_version_returns_204(server: Server) -> None:
    answer = server.raw("DELETE", f"services/{uuid.uuid4()}")
    assert answer.status_code == 204
    assert answer.content == b""


@pytest.mark.slow
def test_the_operation_id_is_the_last_part_of_operation_location(server: Server, buildable: dict[str, Any]) -> None:
    accepted = server.raw("POST", "images", json=image_body(buildable["id"]))
    assert accepted.headers["Operation-Location"].rsplit("/", 1)[1] == accepted.headers["x-ms-request-id"]
    operation = server.finished(accepted)
    image_id = operation["resourceLocation"].rsplit("/", 1)[1]
    shown = server.raw("GET", f"images/{image_id}").json()
    assert {"id", "description", "imageType", "manifestId"} <= shown.keys()


def test_data_collection_in_a_service_is_ignored(server: Server, image: dict[str, Any]) -> None:
    body = {**service_body(image["id"]), "dataCollection": {"appInsightsEnabled": False, "appInsightsKey": None}}
    operation = server.finished(server.raw("POST", "services", json=body))
    assert operation["state"] == "Succeeded", operation
    assert server.raw("DELETE", f"services/{operation['resourceLocation'].rsplit('/', 1)[1]}").status_code == 200
