"""Any body gets a JSON response without a status 5xx, and a rejected request stores nothing."""

import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.server import API_VERSION, Server, image_body, service_body
from tests.twins import examples

SETTINGS = settings(
    max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(max_size=60) | st.sampled_from(["", "\0", "\ud800", "../..", "{{7*7}}", "<script>", "a" * 5000, "‮", "𝕏"])
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


def good(server: Server, noun: str) -> dict[str, Any]:
    """Return a body that is valid except that its ids don't exist."""
    return {
        "models": {"name": "hostile", "url": "http://models.example/x", "tags": ["a"], "unpack": True},
        "manifests": server.manifest_body(modelIds=["hostile"]),
        "images": image_body(str(uuid.uuid4())),
        "services": service_body(str(uuid.uuid4())),
    }[noun]


def check(server: Server, noun: str, body: bytes) -> None:
    answer = server.raw("POST", noun, params={"api-version": API_VERSION}, data=body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["error"]["code"]


@pytest.mark.slow
@pytest.mark.parametrize("noun", ["models", "manifests", "images", "services"])
class TestHostile:
    @SETTINGS
    @given(body=st.binary(max_size=300))
    def test_bytes(self, server: Server, noun: str, body: bytes) -> None:
        check(server, noun, body)

    @SETTINGS
    @given(data=st.data())
    def test_one_field_of_a_valid_body_replaced(self, server: Server, noun: str, data: st.DataObject) -> None:
        import json

        body = good(server, noun)
        body[data.draw(st.sampled_from(sorted(body)) | TEXT)] = data.draw(VALUE)
        check(server, noun, json.dumps(body).encode())

    @SETTINGS
    @given(path=TEXT, query=st.dictionaries(TEXT, TEXT, max_size=3))
    def test_paths_and_queries(self, server: Server, noun: str, path: str, query: dict[str, str]) -> None:
        from urllib.parse import quote

        quoted = quote(path, safe="", errors="replace")
        clean = {k.encode(errors="replace"): v.encode(errors="replace") for k, v in query.items()}
        answer = server.raw("GET", f"{noun}/{quoted}", params=clean)
        assert answer.status_code < 500, answer.text
