"""An uploaded schema is checked when the manifest is created."""

from collections.abc import Iterator
from typing import Any

import pytest

from mms.images.plan.spec import Asset
from mms.models import Manifest, Model
from mms.operations import uploads
from mms.operations.uploads import find_schema_problem
from tests.doubles.files import Files, running_files
from tests.unit.mms.api.test_audit import Client

pytestmark = pytest.mark.django_db(transaction=True)
GOOD = '{"input": {"é": {"type": "number", "minimum": 0}}}'
BAD = '{"input": {"age": {"type": "number", "minimum": "0"}}}'
PATH = f"/files/{'0' * 64}/schema.json"


@pytest.fixture
def files(settings: Any) -> Iterator[Files]:
    with running_files() as files:
        settings.FILES_URL = files.url
        yield files


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD.encode(), ""),
        (GOOD.encode("utf-8-sig"), ""),
        (GOOD.encode("utf-16"), ""),
        (BAD.encode(), "input.age.minimum must be a number"),
        (b"not JSON", "is not JSON"),
        (b"[]", "must be a JSON object"),
        (b"\xff" * 20, "isn't UTF-8 text"),
    ],
)
def test_an_upload_is_checked(files: Files, content: bytes, says: str) -> None:
    files.put(PATH, content)
    problem = find_schema_problem(Asset("schema", f"{files.url}{PATH}?key=1"))
    assert says in problem
    assert bool(says) == bool(problem)


def test_only_readable_uploads_of_schemas_are_checked(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put(PATH, BAD.encode())
    files.put("/elsewhere/schema.json", BAD.encode())
    assert find_schema_problem(Asset("other", f"{files.url}{PATH.replace('schema', 'words')}")) == ""
    assert find_schema_problem(Asset("schema", f"{files.url}{PATH}", unpack=True)) == ""
    assert find_schema_problem(Asset("schema", f"{files.url}/elsewhere/schema.json")) == ""
    assert find_schema_problem(Asset("schema", "http://127.0.0.1:1/files/x/schema.json")) == ""
    assert files.asked == []
    assert find_schema_problem(Asset("schema", f"{files.url}{PATH.replace('0', '1')}")) == ""  # doesn't exist
    monkeypatch.setattr(uploads, "MAX_SCRIPT_BYTES", 10)
    assert find_schema_problem(Asset("schema", f"{files.url}{PATH}")) == ""  # the build reports it


def test_a_manifest_with_an_invalid_schema_is_rejected_by_field_and_keyword(files: Files, live_redis: Any) -> None:
    client = Client()
    client.send("POST", "models", {"name": "iris", "url": "http://models.example/model.pkl"})
    files.put(PATH, BAD.encode())
    assets = [
        {"id": "score", "url": "http://models.example/score.py", "mimeType": "text/x-python"},
        {"id": "schema", "url": f"{files.url}{PATH}", "mimeType": "application/json"},
    ]
    body = {
        "modelType": "Registered",
        "modelIds": [str(Model.objects.get().id)],
        "driverProgram": "score",
        "assets": assets,
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
    }
    status, answer = client.send("POST", "manifests", body)
    assert status == 400
    assert [(item["code"], item["target"]) for item in answer["error"]["details"]] == [("SchemaInvalid", "assets[1]")]
    assert "input.age.minimum must be a number" in answer["error"]["message"]
    assert not Manifest.objects.exists()
    files.put(PATH, GOOD.encode())
    assert client.send("POST", "manifests", body)[0] == 200
