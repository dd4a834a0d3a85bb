"""The OpenAPI document and its HTML page."""

import re
from typing import Any

import jsonschema
import pytest
import requests
from openapi_spec_validator import validate

from tests.contract.server import Server, as_object


@pytest.fixture(scope="module")
def document(server: Server, own_site: object) -> dict[str, Any]:
    if own_site is None:
        pytest.skip("the documents are those of the bundled server")
    return as_object(requests.get(f"{server.url}/api/openapi.json", timeout=30))


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_it_has_every_operation_of_the_reference(document: dict[str, Any]) -> None:
    found = {
        f"{method.upper()} {path.split('{hostingAccount}/')[1]}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not operation["x-extension"]
    }
    lists = {f"GET {noun}" for noun in ("models", "manifests", "images", "services")}
    ones = {f"GET {noun}/{{id}}" for noun in ("models", "manifests", "images", "services", "operations")}
    writes = {f"POST {noun}" for noun in ("models", "manifests", "images", "services")}
    assert found == lists | ones | writes | {"PUT services/{id}", "DELETE services/{id}"}


@pytest.mark.parametrize("noun", ["models", "manifests", "images", "services"])
def test_responses_match_the_document(
    server: Server, document: dict[str, Any], image: dict[str, Any], noun: str
) -> None:
    server.model()
    path = next(path for path in document["paths"] if path.endswith(f"}}/{noun}"))
    answer = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema = {**answer, "components": document["components"]}
    jsonschema.validate(server.send("GET", noun).json(), schema)


def test_an_error_matches_the_document(server: Server, document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ErrorBody", "components": document["components"]}
    jsonschema.validate(server.send("POST", "models", {}).json(), schema)


def test_the_page_lists_every_operation_and_loads_nothing_from_other_hosts(
    server: Server, document: dict[str, Any]
) -> None:
    answer = requests.get(f"{server.url}/api/docs", timeout=30)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for item in document["paths"].values():
        for operation in item.values():
            assert f'id="{operation["operationId"]}"' in answer.text
    assert not re.search(r'(src|href)="(https?:)?//', answer.text)
    assert "<script" not in answer.text
