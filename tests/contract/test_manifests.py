"""Create manifest, get and list manifests (the reference: "Create manifest", "Get Manifest Information")."""

import uuid
from datetime import datetime

import pytest

from tests.contract.server import Server, targets

SPELLINGS = [("SparkPython", "SparkPython"), ("parkPython", "SparkPython"), ("Tlc37", "TLC")]
RUNTIMES = [(name, name) for name in ("CNTKPython", "ScikitPython", "TLC")] + SPELLINGS


def test_creating_a_manifest_returns_200_with_every_field(server: Server) -> None:
    body = server.manifest_body(
        description="What the image is made of",
        targetRuntime={
            "runtimeType": "ScikitPython",
            "properties": {"pipRequirements": "scikit-learn==1.5.0\n", "condaEnvFile": "http://files.example/env.yml"},
        },
    )
    answer = server.send("POST", "manifests", body)
    assert answer.status_code == 200
    uuid.UUID(answer.headers["x-ms-request-id"])
    manifest = answer.json()
    uuid.UUID(manifest["id"])
    datetime.fromisoformat(manifest["createdTime"])
    for field in ("driverProgram", "description", "modelIds", "targetRuntime"):
        assert manifest[field] == body[field]
    assert manifest["modelType"] == "Registered"
    assert manifest["assets"] == [{**body["assets"][0], "unPack": False}]


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("pipRequirements", "numpy\n--index-url https://pypi.example/simple", "Requirement 2 is an option"),
        ("pipRequirements", "six @ https://files.example/six.whl", "Requirement 1 refers to a URL or a file (six)"),
        ("pipRequirements", "./wheels/six.whl", "Requirement 1 is not a package name and version"),
        ("pipRequirements", "https://user:hidden-word@files.example/r.txt", "must not contain a user name or password"),
        ("condaEnvFile", "dependencies: [{pip: [-e .]}]", "Requirement 1 is an option (-e .)"),
        ("condaEnvFile", "https://user@files.example/env.yml", "must not contain a user name or password"),
    ],
)
def test_requirements_that_no_build_would_accept_are_refused(
    server: Server, field: str, text: str, reason: str
) -> None:
    body = server.manifest_body(targetRuntime={"runtimeType": "Python", "properties": {field: text}})
    answer = server.send("POST", "manifests", body)
    assert answer.status_code == 400
    assert targets(answer) == {f"targetRuntime.properties.{field}"}
    assert reason in answer.json()["error"]["message"]
    assert "hidden-word" not in answer.text


def test_a_manifest_is_found_by_its_id_and_in_the_list(server: Server) -> None:
    manifest = server.manifest()
    assert server.send("GET", f"manifests/{manifest['id']}").json() == manifest
    for path in ("manifests", "manifests/"):
        listed = server.send("GET", path).json()
        assert isinstance(listed, list)
        assert manifest in listed


def test_models_are_given_by_name_or_id_and_returned_as_sent(server: Server) -> None:
    named, by_id = server.model(), server.model()
    manifest = server.manifest(modelIds=[named["name"], by_id["id"]])
    assert manifest["modelIds"] == [named["name"], by_id["id"]]


def test_a_name_refers_to_the_newest_version_at_that_time(server: Server) -> None:
    first = server.model()
    manifest = server.manifest(modelIds=[first["name"]])
    later = server.model(first["name"])
    by_model = [m["id"] for m in server.send("GET", "manifests", modelId=first["id"]).json()]
    assert by_model == [manifest["id"]]
    assert server.send("GET", "manifests", modelId=later["id"]).json() == []


@pytest.mark.parametrize(("sent", "answered"), RUNTIMES)
def test_every_runtime_of_the_reference_is_accepted(server: Server, sent: str, answered: str) -> None:
    manifest = server.manifest(targetRuntime={"runtimeType": sent})
    assert manifest["targetRuntime"]["runtimeType"] == answered


@pytest.mark.parametrize("model_type", ["Registered", "registered"])
def test_the_model_type_is_accepted_in_both_spellings_of_the_reference(server: Server, model_type: str) -> None:
    assert server.manifest(modelType=model_type)["modelType"] == "Registered"


def test_fields_of_the_clients_of_2017_are_accepted(server: Server) -> None:
    assets = [
        {"id": "driver", "url": "http://models.example/d.py", "mimeType": "application/x-python"},
        {"id": "score.py", "url": "http://models.example/s.py", "mimeType": "text/plain", "unpack": "true"},
    ]
    manifest = server.manifest(name=None, description=None, driverProgram="driver", assets=assets)
    assert manifest["description"] == ""
    assert [asset["unPack"] for asset in manifest["assets"]] == [False, True]
    assert server.manifest(name="anything")["id"]


def test_a_manifest_does_not_need_a_driver(server: Server) -> None:
    body = server.manifest_body(assets=[])
    del body["driverProgram"]
    answer = server.send("POST", "manifests", body)
    assert answer.status_code == 200
    assert answer.json()["driverProgram"] == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"modelType": "Other"}, "modelType"),
        ({"modelType": None}, "modelType"),
        ({"modelIds": []}, "modelIds"),
        ({"modelIds": "one"}, "modelIds"),
        ({"modelIds": ["nobody-made-this"]}, "modelIds[0]"),
        ({"modelIds": [str(uuid.uuid4())]}, "modelIds[0]"),
        ({"modelIds": [{"id": 1}]}, "modelIds[0]"),
        ({"assets": None}, "assets"),
        ({"assets": {}}, "assets"),
        ({"assets": [{"id": "score"}]}, "assets[0].url"),
        ({"driverProgram": "missing"}, "driverProgram"),
        ({"driverProgram": ["score"]}, "driverProgram"),
        ({"description": "d" * 513}, "description"),
        ({"targetRuntime": None}, "targetRuntime"),
        ({"targetRuntime": "Python"}, "targetRuntime"),
        ({"targetRuntime": {}}, "targetRuntime.runtimeType"),
        ({"targetRuntime": {"runtimeType": "Fortran"}}, "targetRuntime.runtimeType"),
        ({"targetRuntime": {"runtimeType": "Python", "properties": {"x": "y"}}}, "targetRuntime.properties.x"),
        ({"targetRuntime": {"runtimeType": "Python", "properties": []}}, "targetRuntime.properties"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_an_invalid_field_is_named_and_nothing_is_stored(server: Server, change: dict[str, object], named: str) -> None:
    before = len(server.send("GET", "manifests").json())
    answer = server.send("POST", "manifests", {**server.manifest_body(), **change})
    assert answer.status_code == 400
    assert named in targets(answer)
    assert len(server.send("GET", "manifests").json()) == before


@pytest.mark.parametrize("id", ["a" * 33, "with blank", "../up", ".hidden", "", "a/b", 5])
def test_an_invalid_asset_id_is_named(server: Server, id: object) -> None:
    assets = [{"id": id, "url": "http://models.example/x", "mimeType": "text/plain"}]
    answer = server.send("POST", "manifests", server.manifest_body(assets=assets, driverProgram=""))
    assert answer.status_code == 400
    assert targets(answer) == {"assets[0].id"}


def test_a_duplicate_asset_or_model_is_rejected(server: Server) -> None:
    model = server.model()
    asset = {"id": "score", "url": "http://models.example/x", "mimeType": "text/plain"}
    body = server.manifest_body(modelIds=[model["id"], model["name"]], assets=[asset, asset])
    answer = server.send("POST", "manifests", body)
    assert answer.status_code == 400
    assert targets(answer) == {"modelIds[1]", "assets[1].id"}


def test_models_of_another_account_are_not_found(server: Server, other_account: Server) -> None:
    foreign = other_account.model()
    answer = server.send("POST", "manifests", server.manifest_body(modelIds=[foreign["id"]]))
    assert answer.status_code == 400
    assert targets(answer) == {"modelIds[0]"}


def test_an_invalid_filter_is_named(server: Server) -> None:
    answer = server.send("GET", "manifests", modelId="no-guid")
    assert answer.status_code == 400
    assert targets(answer) == {"modelId"}


def test_an_unknown_manifest_is_404(server: Server) -> None:
    assert server.send("GET", f"manifests/{uuid.uuid4()}").status_code == 404
