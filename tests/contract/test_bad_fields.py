"""Invalid values in every field and parameter of every route: a 400 that names the field, and nothing is stored."""

import copy
import json
import sqlite3
import uuid
from collections import Counter
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mms.api.routes import ROUTES
from tests.contract.server import API_VERSION, Server, image_body, service_body, targets
from tests.site import Site
from tests.twins import examples

CASES = settings(
    max_examples=examples(40, 150),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TABLES = ("mms_model", "mms_manifest", "mms_image", "mms_service", "mms_revision", "mms_operation")
COUNTED: Counter[str] = Counter()

# --- what is wrong with a field, by its kind ----------------------------------------------------------------------

SCALARS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NO_TEXT = (
    SCALARS
    | st.booleans()
    | st.lists(st.text(max_size=5), max_size=3)
    | st.dictionaries(st.text(), st.text(), max_size=2)
)
NO_LIST = (
    SCALARS
    | st.booleans()
    | st.text(max_size=30)
    | st.dictionaries(st.text(max_size=5), st.text(), min_size=1, max_size=2)
)
NO_OBJECT = SCALARS | st.booleans() | st.text(max_size=30) | st.lists(st.text(max_size=5), max_size=3)
NUL = st.text(max_size=10).map(lambda text: f"{text}\0")
SURROGATE = st.just("\ud800")


def longer(most: int) -> st.SearchStrategy[str]:
    return st.integers(1, 300).map(lambda more: "a" * (most + more))


def not_of(pattern: str) -> st.SearchStrategy[str]:
    """Return strings with a character outside `pattern`, a character set of a regular expression."""
    return st.tuples(
        st.from_regex(rf"[{pattern}]{{0,5}}", fullmatch=True),
        st.from_regex(rf"[^{pattern}\ud800-\udfff]", fullmatch=True),
    ).map("".join)


NO_URLS = [
    "",
    "x",
    "ftp://a/b",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "data:,x",
    "http://",
    "//a/b",
    "http:///a",
]
MARRED = [
    "http://a b/",
    "http://a/\n",
    "http://a:0/",
    "http://a:99999/",
    "http://[::1",
    "http://a/\x7f",
    "http://a/\u2028",
]
WITH_CREDENTIALS = [
    "https://user:secret@a/m.pkl",
    "https://user@a/m.pkl",
    "https://:secret@a",
    "https://@a/",
    "https://user%3Asecret%40a/",
    "http://user:se\\cret@a/",
]
URL = NO_TEXT | st.sampled_from(NO_URLS + MARRED + WITH_CREDENTIALS)
TEXT = {n: NO_TEXT | longer(n) | NUL | SURROGATE for n in (64, 200, 255, 512, 8192, 65536)}
MIME = NO_TEXT | longer(200) | not_of(" -~")
FLAG = st.sampled_from(["", "perhaps", 2, -1, 0.5, [], {}, [True]])
ID = NO_TEXT | st.just("") | longer(64) | NUL

Path = tuple[str | int, ...]
MODEL: dict[Path, st.SearchStrategy[Any]] = {
    ("name",): NO_TEXT | longer(32) | not_of("A-Za-z0-9-") | st.just(""),
    ("url",): URL | longer(4096).map(lambda text: f"http://a/{text}"),
    ("tags",): NO_LIST | st.just(["a"] * 101),
    ("tags", 0): NO_TEXT | longer(29) | not_of("A-Za-z0-9") | st.just(""),
    ("description",): TEXT[200],
    ("mimeType",): MIME,
    ("unPack",): FLAG,
}
BAD_REQUIREMENTS = [
    *WITH_CREDENTIALS,
    "--index-url https://a/simple",
    "-r other.txt",
    "numpy\n-e git+https://a/b.git",
    "six @ https://a/six.whl",
    "./local",
    "/etc/passwd",
    "${HOME}",
    "https://a/r.txt\nnumpy",
    "numpy==",
]
BAD_CONDA_FILES = [
    *WITH_CREDENTIALS,
    "dependencies: [numpy]",
    "dependencies: [{pip: ['--index-url https://a/simple']}]",
    "dependencies: [{pip: ['six @ file:///six.whl']}]",
    "just text",
    "dependencies: &a [*a]",
]
MANIFEST: dict[Path, st.SearchStrategy[Any]] = {
    ("driverProgram",): TEXT[255],
    ("description",): TEXT[512],
    ("modelType",): NO_TEXT | st.text(max_size=8),
    ("modelIds",): NO_LIST | st.just([]) | st.just(["a"] * 201),
    ("modelIds", 0): NO_TEXT | longer(36) | NUL | st.just(""),
    ("assets",): NO_LIST | st.just([{}] * 201),
    ("assets", 0): NO_OBJECT,
    ("assets", 0, "id"): NO_TEXT | longer(32) | not_of("A-Za-z0-9_.-") | st.sampled_from(["", ".", "..", ".x", "a/b"]),
    ("assets", 0, "url"): URL,
    ("assets", 0, "mimeType"): MIME,
    ("assets", 0, "unPack"): FLAG,
    ("targetRuntime",): NO_OBJECT,
    ("targetRuntime", "runtimeType"): NO_TEXT
    | st.sampled_from(["", "Perl", "python3", "{0}", "\0", "Python "])
    | longer(64),
    ("targetRuntime", "properties"): NO_OBJECT,
    ("targetRuntime", "properties", "pipRequirements"): TEXT[65536] | st.sampled_from(BAD_REQUIREMENTS),
    ("targetRuntime", "properties", "condaEnvFile"): TEXT[65536] | st.sampled_from(BAD_CONDA_FILES),
}
NO_REGISTRIES = ["", "oci://", "oci://other", "ftp://a", "file:///x", "https://", "https://a b", "https://u:p@a"]
REGISTRY = NO_TEXT | longer(400) | st.sampled_from([*NO_REGISTRIES, "a?b", "a#b", "-a", "a/\n"])
IMAGE: dict[Path, st.SearchStrategy[Any]] = {
    ("manifestId",): ID,
    ("description",): TEXT[512],
    ("imageType",): NO_TEXT | st.text(max_size=5),
    ("registryInfo",): NO_OBJECT,
    ("registryInfo", "user"): TEXT[200],
    ("registryInfo", "location"): REGISTRY,
    ("registryInfo", "password"): TEXT[8192],
}
NO_NAME = NO_TEXT | longer(63) | not_of("A-Za-z0-9._-") | st.sampled_from(["", "-", "a-", ".a", "a.", "a\n"])
SERVICE: dict[Path, st.SearchStrategy[Any]] = {
    ("name",): NO_NAME,
    ("imageId",): ID,
    ("kubeConfig",): NO_TEXT | longer(65536) | NUL | st.just(""),
    ("acrImagePullSecret",): NO_TEXT | st.just("") | longer(200) | NUL,
}
UPDATE: dict[Path, st.SearchStrategy[Any]] = {
    ("manifestId",): ID,
    ("imageId",): ID,
    ("acrImagePullSecret",): SERVICE[("acrImagePullSecret",)],
}
KEYS: dict[Path, st.SearchStrategy[Any]] = {
    ("keyType",): NO_TEXT | st.text(max_size=8).filter(lambda text: text not in {"Primary", "Secondary"})
}
BAD = {
    "register_model": ("POST", "models", MODEL),
    "create_manifest": ("POST", "manifests", MANIFEST),
    "create_image": ("POST", "images", IMAGE),
    "create_service": ("POST", "services", SERVICE),
    "update_service": ("PUT", f"services/{uuid.uuid4()}", UPDATE),
    "regenerate_keys": ("POST", f"services/{uuid.uuid4()}/regenerateKeys", KEYS),
}


def good(route: str) -> dict[str, Any]:
    """Return a valid body with every field of the route."""
    model = {
        "name": "m",
        "url": "http://a.example/x",
        "tags": ["a"],
        "description": "",
        "mimeType": "a/b",
        "unPack": True,
    }
    asset = {"id": "score", "url": "http://a.example/x.py", "mimeType": "a/b", "unPack": False}
    runtime = {"runtimeType": "Python", "properties": {"pipRequirements": "numpy", "condaEnvFile": ""}}
    manifest = {"driverProgram": "score", "description": "", "modelType": "Registered", "modelIds": ["m"]}
    bodies: dict[str, dict[str, Any]] = {
        "register_model": model,
        "create_manifest": manifest | {"assets": [asset], "targetRuntime": runtime},
        "create_image": image_body(str(uuid.uuid4())) | {"description": ""},
        "create_service": service_body(str(uuid.uuid4())),
        "update_service": {"manifestId": "m", "imageId": "i", "acrImagePullSecret": "s"},
        "regenerate_keys": {"keyType": "Primary"},
    }
    return bodies[route]


def spelt(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def with_bad(body: Any, path: Path, value: Any) -> Any:
    changed = copy.deepcopy(body)
    inner = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return changed


@pytest.fixture(scope="module")
def rows(own_site: Site | None) -> Any:
    """Return a function that counts all stored rows."""
    if own_site is None:
        pytest.skip("needs the server's database")
    connection = sqlite3.connect(f"file:{own_site.data}/db.sqlite3?mode=ro", uri=True)

    def count() -> list[int]:
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]

    yield count
    connection.close()


def test_every_field_of_every_route_with_a_body_is_tested() -> None:
    """A new route or field needs an entry above."""
    described = {route.name: route.body for route in ROUTES if route.body}
    assert described.keys() == BAD.keys()
    for name, body in described.items():
        assert body
        fields = {field.alias for field in body.model_fields.values()}
        assert {path[0] for path in BAD[name][2]} == fields, name


@pytest.mark.slow
@pytest.mark.parametrize("route", BAD)
@CASES
@given(data=st.data())
def test_an_invalid_value_is_rejected_with_the_name_of_its_field(
    server: Server, rows: Any, record: dict[str, object], route: str, data: st.DataObject
) -> None:
    method, address, fields = BAD[route]
    path = data.draw(st.sampled_from(sorted(fields, key=str)))
    value = data.draw(fields[path])
    before = rows()
    body = json.dumps(with_bad(good(route), path, value)).encode()
    answer = server.raw(method, address, params={"api-version": API_VERSION}, data=body)
    assert answer.status_code == 400, (path, value, answer.text)
    error = answer.json()["error"]
    if error["code"] != "InvalidJson":  # a lone surrogate isn't valid JSON
        assert any(target.startswith(spelt(path)) for target in targets(answer)), (path, value, error)
        assert all(detail["message"] for detail in error["details"])
        assert spelt(path) in error["message"]
    assert rows() == before
    COUNTED[route] += 1
    record["bad bodies refused"] = COUNTED[route]


@pytest.mark.slow
@pytest.mark.parametrize("route", BAD)
def test_a_missing_or_unknown_field_is_rejected_with_its_name(server: Server, rows: Any, route: str) -> None:
    method, address, _ = BAD[route]
    before = rows()
    unknown = server.raw(method, address, json=good(route) | {"colour": "red"})
    assert (unknown.status_code, targets(unknown)) == (400, {"colour"})
    described = next(item.body for item in ROUTES if item.name == route)
    assert described
    for field in described.model_fields.values():
        if field.is_required():
            body = {name: value for name, value in good(route).items() if name != field.alias}
            answer = server.raw(method, address, json=body)
            assert (answer.status_code, targets(answer)) == (400, {field.alias})
    assert rows() == before


NO_ID = st.text(st.characters(codec="ascii", exclude_characters="\0&=#%+;"), min_size=1, max_size=40).filter(
    lambda text: not set(text) <= set("0123456789abcdefABCDEF-")
)
NO_NUMBER = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda text: not text.isdigit()
) | st.integers(10**18 + 1, 10**30).map(str)  # fmt: skip
PARAMETERS = [
    ("manifests", "modelId", NO_ID),
    ("images", "modelId", NO_ID),
    ("images", "manifestId", NO_ID),
    ("services", "imageId", NO_ID),
    ("services", "manifestId", NO_ID),
    ("services/{id}/logs", "after", NO_NUMBER),
    ("services/{id}/logs", "limit", NO_NUMBER),
    ("services/{id}/logs", "revision", NO_NUMBER),
    ("operations/{id}/log", "after", NO_NUMBER),
    ("operations/{id}/log", "limit", NO_NUMBER),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name", "bad"), PARAMETERS, ids=lambda part: part if isinstance(part, str) else "")
@settings(CASES, max_examples=examples(15, 40))
@given(data=st.data())
def test_an_invalid_parameter_is_rejected_with_its_name(
    server: Server,
    service: dict[str, Any],
    operation: str,
    path: str,
    name: str,
    bad: st.SearchStrategy[str],
    data: st.DataObject,
) -> None:
    id = service["id"] if path.startswith("services") else operation
    value = data.draw(bad)
    answer = server.send("GET", path.format(id=id), **{name: value})
    assert answer.status_code == 400, (value, answer.text)
    assert targets(answer) == {name}


@pytest.fixture(scope="module")
def operation(server: Server) -> str:
    """Return a finished operation: a build whose model doesn't exist."""
    accepted = server.send("POST", "images", image_body(server.manifest()["id"]))
    server.finished(accepted)
    return accepted.headers["x-ms-request-id"]


@pytest.mark.slow
@settings(CASES, max_examples=examples(80, 300))
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "X"]), data=st.data()
)
def test_no_path_causes_a_server_error_or_stores_anything(
    server: Server, rows: Any, method: str, data: st.DataObject
) -> None:
    """The paths are those of the API with one segment replaced."""
    segments = data.draw(st.sampled_from([route.path for route in ROUTES])).format(id=uuid.uuid4()).split("/")
    at = data.draw(st.integers(0, len(segments) - 1))
    segments[at] = quote(data.draw(st.text(max_size=30)), safe="", errors="replace")
    before = rows()
    answer = server.raw(method, "/".join(segments), data=b"{}" if method in {"POST", "PUT"} else None)
    assert 200 <= answer.status_code < 500, answer.text
    assert rows() == before
