"""The OpenAPI document of the JSON API is complete and valid, and matches the API's requests and responses.

Every response that tests receive through `Program` is checked against it; see programs.py.
"""

import copy
import json
import re
from typing import Any

import jsonschema
import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from openapi_spec_validator import validate

from dashboard.access.permissions import Permission
from dashboard.api import serializers
from dashboard.api.openapi.bodies import OPERATIONS
from dashboard.api.openapi.declare import Endpoint
from dashboard.api.openapi.document import make_document
from dashboard.api.routes import ROUTES, document, endpoints
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.image import CreateImageForm
from dashboard.forms.resources.manifest import CreateManifestForm
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from dashboard.forms.settings.member import AddMemberForm
from dashboard.http.problems import CODES
from dashboard.version import __version__
from deployments.models import Cluster, Image, Operation, Service
from deployments.models.operation import NEEDS_DECISION, State
from tests.support.people import Lab, make_lab, make_operation
from tests.support.programs import Program, person, row_of, token_of
from tests.support.workshop import make_image

pytestmark = pytest.mark.django_db
SCHEMAS = document()["components"]["schemas"]
OPERATIONS_BY_ID = {
    operation["operationId"]: (method, path, operation)
    for path, item in document()["paths"].items()
    for method, operation in item.items()
}


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def admin(lab: Lab) -> Program:
    return Program(token_of(get_user_model().objects.create_superuser("ada")))


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document()["components"]})


def examples_of(operation: dict[str, Any]) -> list[Any]:
    """Return the examples of the request body."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return [example["value"] for example in content.get("examples", {}).values()] or (
        [content["example"]] if content else []
    )


def test_it_is_valid_and_has_the_version_of_the_project() -> None:
    validate(document())
    assert document()["info"]["version"] == __version__


def test_it_has_every_route_and_no_other() -> None:
    there = {(method, path) for method, path, _ in OPERATIONS_BY_ID.values()}
    assert there == {
        (method.lower(), "/v1/" + re.sub(r"<\w+:(\w+)>", r"{\1}", route))
        for route, methods in ROUTES.items()
        for method in methods
    }
    assert len(OPERATIONS_BY_ID) == len(endpoints()), "two operations have one name"


def test_operations_are_named_as_pages_and_audit_entries_are() -> None:
    assert {"list_models", "get_model", "create_operation", "add_asset", "retry_operation"} <= set(OPERATIONS_BY_ID)
    for endpoint in endpoints():
        if action := getattr(endpoint.view, "action", ""):
            assert endpoint.operation_id == action
        elif endpoint.method == "GET":
            assert f"v1_{endpoint.operation_id}" == endpoint.url_name


def test_every_operation_names_the_permission_that_guards_it() -> None:
    for endpoint in endpoints():
        operation = OPERATIONS_BY_ID[endpoint.operation_id][2]
        guarded = endpoint.view.permission  # type: ignore[attr-defined]
        if endpoint.operation_id == "create_operation":
            guarded = Permission.CREATE_IMAGE
        assert operation["x-permission"] == str(guarded)
        assert f"Needs: {endpoint.needs}." in operation["description"]


def test_every_error_code_is_in_it() -> None:
    assert set(SCHEMAS["ErrorDetail"]["properties"]["code"]["enum"]) == set(CODES.values())


@pytest.mark.parametrize("name", OPERATIONS_BY_ID)
def test_its_examples_are_valid(name: str) -> None:
    operation = OPERATIONS_BY_ID[name][2]
    for example in examples_of(operation):
        validator(operation["requestBody"]["content"]["application/json"]["schema"]).validate(example)
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if "example" in content:
                validator(content["schema"]).validate(content["example"])


def test_request_bodies_have_the_fields_of_the_forms_that_parse_them(lab: Lab) -> None:
    Cluster.objects.create(account=lab.account, name="second", pull_secret="p")
    lab.service.cluster = None
    forms = {
        "RegisterModel": RegisterModelForm(lab.account),
        "CreateManifest": CreateManifestForm(lab.account),
        "CreateImage": CreateImageForm(lab.account),
        "CreateService": CreateServiceForm(lab.account),
        "UpdateService": UpdateServiceForm(lab.service),
        "AddAsset": AddAssetForm(lab.account),
        "AddMember": AddMemberForm(lab.account),
    }
    more = {"UpdateService": {"service"}}
    for name, form in forms.items():
        assert set(SCHEMAS[name]["properties"]) - {"kind"} == set(form.fields) | more.get(name, set()), name
    assert len(OPERATIONS) == 6


def test_what_its_parameters_allow_is_accepted_and_nothing_else(lab: Lab, admin: Program) -> None:
    for method, path, operation in OPERATIONS_BY_ID.values():
        url = path.replace("{account}", "lab")
        if "{pk}" in url:
            continue
        for parameter in operation["parameters"]:
            schema = parameter["schema"].get("items", parameter["schema"])
            if parameter["in"] == "query" and "enum" in schema:
                for value in schema["enum"]:
                    assert admin.send(method.upper(), f"{url}?{parameter['name']}={value}").status_code == 200
                refused = admin.send(method.upper(), f"{url}?{parameter['name']}=no-such")
                assert list(refused.json()["error"]["fields"]) == [parameter["name"]]


class Job:
    """Client that sends the document's examples to the lab, with the ids and names of its rows."""

    def __init__(self, lab: Lab, admin: Program) -> None:
        self.lab, self.admin = lab, admin
        self.names = {"add_account": "new", "create_service": "second-service", "add_person": "nora"}

    def address(self, endpoint: Endpoint) -> str:
        noun = re.search(r"(\w+)/<\w+:pk>", endpoint.route)
        pk = str(row_of(self.lab, noun[1]).pk) if noun else ""
        return endpoint.path.replace("{account}", self.lab.account.name).replace("{pk}", pk)

    def body(self, name: str, example: Any) -> Any:
        rows = {
            "models": [self.lab.model.pk],
            "assets": [self.lab.asset.pk],
            "driver": self.lab.asset.pk,
            "manifest": self.lab.manifest.pk,
            "image": make_image(self.lab.manifest).pk,
            "base_url": "http://127.0.0.1:9",
            "kube_config": json.dumps(KUBECONFIG),
        }
        known = {field: rows[field] for field in example if field in rows}
        names = {"name": self.names[name]} if name in self.names and "name" in example else {}
        confirmed = {"name": self.lab.account.name} if name == "delete_account" else {}
        return {**example, **known, **names, **confirmed}


KUBECONFIG = {
    "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


def prepare(name: str, lab: Lab) -> None:
    """Prepare the lab so that the operation is possible."""
    person("nina")
    if name == "retry_operation":
        body = {"manifest": lab.manifest.pk, "registry": lab.registry.pk, "description": ""}
        lab.operation = make_operation(lab.image, state=State.FAILED, body=body)
        Image.objects.filter(pk=lab.image.pk).update(mms_id=None)
    elif name == "cancel_operation":
        lab.operation = make_operation(lab.model, state=State.QUEUED)
    elif name == "settle_operation":
        lab.operation = make_operation(lab.model, state=State.UNCERTAIN, error_code=NEEDS_DECISION)
    elif name == "resume_operation":
        lab.operation = make_operation(lab.model, state=State.UNCERTAIN, error_code="x", mms_operation_id="1")
    elif name == "delete_account":
        Operation.objects.all().delete()


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda found: found.operation_id)
def test_every_operation_succeeds_with_its_examples_and_responds_as_documented(
    endpoint: Endpoint, lab: Lab, admin: Program
) -> None:
    name, job = endpoint.operation_id, Job(lab, admin)
    operation = OPERATIONS_BY_ID[name][2]
    Service.objects.update(scoring_uri="http://127.0.0.1:9/")
    prepare(name, lab)
    for example in examples_of(operation) or [None]:
        Operation.objects.filter(kind__in=("create_service", "update_service")).update(state=State.SUCCEEDED)
        body = job.body(example.get("kind", name), example) if example else None
        answer = admin.send(endpoint.method, job.address(endpoint), body)
        assert str(answer.status_code) == next(iter(operation["responses"])), answer.content


def test_a_serializer_with_a_different_response_is_detected(
    lab: Lab, admin: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/accounts/lab/registries/{lab.registry.pk}/"
    admin.get(path)
    for wrong in ({"name": 7}, {"surplus": ""}):
        monkeypatch.setattr(serializers, "secret_dates", lambda row, wrong=wrong: {**things_of(row), **wrong})
        with pytest.raises(jsonschema.ValidationError):
            admin.get(path)


def things_of(row: Any) -> dict[str, Any]:
    return {"secret_set_at": None, "secret_set_by": row.secret_set_by}


def test_a_view_without_a_declaration_is_detected() -> None:
    undeclared = copy.copy(endpoints()[0])
    object.__setattr__(undeclared, "view", lambda request: None)
    with pytest.raises(AttributeError):
        make_document([undeclared], "1")


def test_the_document_is_public_and_cacheable() -> None:
    answer = Client().get("/v1/openapi.json")
    assert answer.json() == document()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "max-age=300"
    again = Client().get("/v1/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/docs/"])
def test_the_page_lists_every_operation_and_loads_nothing_from_other_hosts(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 200
    page = answer.content.decode()
    for name, (_, template, _) in OPERATIONS_BY_ID.items():
        assert f'id="{name}"' in page
        assert template in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "<script" not in page
    targets = set(re.findall(r'href="#([\w-]+)"', page))
    assert targets <= set(re.findall(r'id="([\w-]+)"', page))
    assert reverse("api_docs") == "/v1/docs"
