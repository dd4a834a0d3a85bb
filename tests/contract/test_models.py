"""Register model, get and list models (the reference: "Register Model", "Get Model Information")."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from tests.contract.server import UNKNOWN_ID, Server, targets


def test_registering_returns_201_with_every_field(server: Server) -> None:
    name = f"m-{uuid.uuid4().hex[:12]}"
    body = {
        "name": name,
        "tags": ["first", "second2"],
        "description": "Überall gültig",
        "url": "https://models.example/a.pkl?sig=1%2F2",
        "mimeType": "application/octet-stream",
        "unpack": True,
    }
    answer = server.send("POST", "models", body)
    assert answer.status_code == 201
    assert answer.headers["content-type"].startswith("application/json")
    uuid.UUID(answer.headers["x-ms-request-id"])
    model = answer.json()
    uuid.UUID(model["id"])
    datetime.fromisoformat(model["createdAt"])
    assert model["version"] == 1
    assert {key: model[key] for key in body if key != "unpack"} == {k: v for k, v in body.items() if k != "unpack"}


def test_omitted_fields_have_the_defaults_of_the_reference(server: Server) -> None:
    model = server.model()
    assert model["description"] == ""
    assert model["tags"] == []
    assert model["mimeType"] == ""


def test_versions_count_per_name_from_one(server: Server) -> None:
    first = server.model()
    assert [server.model(first["name"])["version"] for _ in range(3)] == [2, 3, 4]
    assert server.model()["version"] == 1


def test_versions_have_no_gaps_when_many_register_at_once(server: Server) -> None:
    name = f"m-{uuid.uuid4().hex[:12]}"
    with ThreadPoolExecutor(12) as pool:
        versions = list(pool.map(lambda _: server.model(name)["version"], range(60)))
    assert sorted(versions) == list(range(1, 61))


def test_a_model_is_found_by_its_id_and_in_the_list(server: Server) -> None:
    model = server.model()
    assert server.send("GET", f"models/{model['id']}").json() == model
    listed = server.send("GET", "models").json()
    assert isinstance(listed, list)
    assert model in listed


@pytest.mark.parametrize("path", ["models", "models/"])
def test_the_list_works_with_and_without_a_trailing_slash(server: Server, path: str) -> None:
    assert server.send("GET", path).status_code == 200


def test_models_are_listed_by_name_and_by_tag(server: Server) -> None:
    tag = uuid.uuid4().hex[:10]
    first = server.model(tags=[tag, "x"])
    second = server.model(first["name"], tags=[f"{tag}longer"])
    assert [m["id"] for m in server.send("GET", "models", name=first["name"]).json()] == [first["id"], second["id"]]
    assert [m["id"] for m in server.send("GET", "models", tag=tag).json()] == [first["id"]]
    assert server.send("GET", "models", name=first["name"], tag="nobodysTag").json() == []


@pytest.mark.parametrize("id", [UNKNOWN_ID, "no-guid", "%00", "0"])
def test_an_unknown_model_is_404(server: Server, id: str) -> None:
    answer = server.send("GET", f"models/{id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a" * 33),
        ("name", "with blank"),
        ("name", "dot.ted"),
        ("name", ""),
        ("name", 7),
        ("name", "line\nbreak"),
        ("name", "ümlaut"),
        ("url", "not a url"),
        ("url", "ftp://models.example/x"),
        ("url", "file:///etc/passwd"),
        ("url", "http://[::1/x"),
        ("url", "http://models.example:99999/x"),
        ("url", ["http://models.example"]),
        ("description", "d" * 201),
        ("description", "nul\0"),
        ("mimeType", {"a": 1}),
        ("unpack", "perhaps"),
        ("unpack", []),
        ("tags", "one"),
        ("tags", {"a": "b"}),
    ],
)
def test_an_invalid_field_is_named_and_nothing_is_stored(server: Server, field: str, value: object) -> None:
    before = len(server.send("GET", "models").json())
    body = {"name": f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/x", field: value}
    answer = server.send("POST", "models", body)
    assert answer.status_code == 400
    assert targets(answer) == {"unPack" if field == "unpack" else field}
    assert len(server.send("GET", "models").json()) == before


@pytest.mark.parametrize("tag", ["t" * 30, "with-hyphen", "", 5, None])
def test_an_invalid_tag_is_named_by_its_position(server: Server, tag: object) -> None:
    answer = server.send("POST", "models", {"name": "m", "url": "http://models.example/x", "tags": ["good", tag]})
    assert answer.status_code == 400
    assert targets(answer) == {"tags[1]"}


def test_all_invalid_fields_are_named_together(server: Server) -> None:
    answer = server.send("POST", "models", {"name": "b d", "tags": ["a b"], "unpack": "no idea", "colour": "red"})
    assert answer.status_code == 400
    assert targets(answer) == {"name", "tags[0]", "unPack", "url", "colour"}


def test_values_at_the_limits_are_accepted(server: Server) -> None:
    name = uuid.uuid4().hex
    model = server.model(name, description="ü" * 200, tags=["t" * 29])
    assert (model["name"], model["description"], model["tags"]) == (name, "ü" * 200, ["t" * 29])


@pytest.mark.parametrize(("sent", "meant"), [(True, True), ("true", True), ("False", False), (None, False)])
@pytest.mark.parametrize("spelling", ["unpack", "unPack"])
def test_unpack_is_accepted_in_every_spelling(server: Server, spelling: str, sent: object, meant: bool) -> None:
    model = server.model("", **{spelling: sent})
    assert model.get("unPack", meant) is meant
