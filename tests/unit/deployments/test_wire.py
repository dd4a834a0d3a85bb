"""Wire format: different spellings of servers have the same result."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.client import wire, wire_values

WHEN = datetime(2017, 8, 2, 10, 0, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = [
    "id",
    "Id",
    "name",
    "version",
    "tags",
    "url",
    "createdAt",
    "unPack",
    "modelIds",
    "assets",
    "targetRuntime",
    "registryInfo",
    "image",
    "revisions",
    "state",
    "error",
    "resourceLocation",
    "scoringUri",
    "health",
    "details",
    "message",
    "code",
    "value",
    "nextLink",
    "primaryKey",
    "properties",
]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("2017-08-02T10:00:00Z", WHEN),
        ("2017-08-02T10:00:00.0000000Z", WHEN),
        ("2017-08-02T12:00:00+02:00", WHEN),
        ("2017-08-02T10:00:00", WHEN),
        ("2017-08-02 10:00", WHEN),
        ("20170802T100000Z", WHEN),
        ("2017-08-02", WHEN.replace(hour=0)),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        (1501668000, None),
        (None, None),
    ],
)
def test_every_form_of_date_is_parsed_or_none(said: object, meant: datetime | None) -> None:
    assert wire_values.parse_datetime(said) == meant


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("NotStarted", "not_started"),
        ("Running", "running"),
        ("succeeded", "succeeded"),
        ("FAILED", "failed"),
        ("Canceled", "canceled"),
        ("Cancelled", "canceled"),
        ("not_started", "not_started"),
        ("Frobnicated", None),
        ("", None),
    ],
)
def test_states_in_every_spelling(said: str, meant: str | None) -> None:
    assert wire.phase(said) == meant


@pytest.mark.parametrize("unpack", ["unPack", "unpack", "UnPack"])
@pytest.mark.parametrize(("said", "meant"), [(True, True), ("true", True), ("False", False), (None, False)])
def test_unpack_in_every_spelling(unpack: str, said: object, meant: bool) -> None:
    asset = wire.AssetRef.from_wire({"Id": "a", "url": "u", "mimeTypes": "text/plain", unpack: said})
    assert asset == wire.AssetRef("a", "u", "text/plain", meant)


@pytest.mark.parametrize(
    ("location", "resource_id"),
    [
        ("https://mms.example/api/services/abc", "abc"),
        ("/services/abc/", "abc"),
        ("https://mms.example/services/abc?api-version=1", "abc"),
        ("abc", "abc"),
        ("/services/a%20b", ""),
        ("/services/..", ""),
        ("javascript:alert(1)", ""),
        ("javascript:abc", ""),
        ("/services/bild-é", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_the_resource_is_the_end_of_its_location(location: str, resource_id: str) -> None:
    assert wire_values.last_segment(location) == resource_id


def test_echoed_secrets_are_not_read() -> None:
    image = wire.Image.from_wire({"id": "i", "registryInfo": {"user": "u", "location": "l", "password": "echo-1"}})
    service = wire.Service.from_wire({"id": "s", "kubeConfig": "echo-2", "acrImagePullSecret": "echo-3"})
    assert "echo" not in repr([image, service])


def test_a_scoring_address_is_a_web_address_or_none() -> None:
    def uri(said: object) -> str | None:
        return wire.Service.from_wire({"id": "s", "scoringUri": said}).scoring_uri

    assert uri("https://mms.example/score") == "https://mms.example/score"
    assert uri("javascript:alert(1)") == ""
    assert uri(None) is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"memoryBytes": 2**31, "tasks": 256, "cpus": 0}, {"memory": 2**31, "tasks": 256}),
        ({"MemoryBytes": "much", "temporaryBytes": -1, "tasks": True, "cpus": 1e400}, {}),
        ({"memoryBytes": 10**400}, {}),
        (["memoryBytes"], None),
        (None, None),
    ],
)
def test_limits_are_positive_numbers_or_left_out(said: object, meant: object) -> None:
    assert wire.Service.from_wire({"id": "1", "limits": said}).limits == meant


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_any_response_is_parsed_or_malformed(data: object) -> None:
    """Any JSON is parsed or raises MalformedPayloadError, never another error."""
    for read in (
        wire.Model.from_wire,
        wire.Manifest.from_wire,
        wire.Image.from_wire,
        wire.Service.from_wire,
        wire.OperationStatus.from_wire,
        wire.page,
        wire.primary_key,
    ):
        with contextlib.suppress(wire_values.MalformedPayloadError):
            read(data)
    failure = wire.Failure.from_wire(data)
    assert "\0" not in failure.message
    failure.message.encode()


def test_redaction_preserves_every_known_state() -> None:
    assert set(wire._PHASES) == wire_values.STATES
