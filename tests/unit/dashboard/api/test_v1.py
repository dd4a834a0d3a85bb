"""The JSON API, with which programs read and do the same as pages."""

import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from django.db import OperationalError
from django.urls import resolve
from django.utils import timezone

from dashboard.api import idempotency
from dashboard.api.routes import endpoints
from dashboard.http.body_limits import BodyLimit
from dashboard.models import AuditEntry, Role, SentOnce
from deployments.live import events
from deployments.models import Image, Operation, RegisteredModel
from deployments.models.operation import NEEDS_DECISION, State
from deployments.operations.submit import SUBMIT
from tests.asgi_server import Server
from tests.support.people import Lab, make_lab, make_operation
from tests.support.programs import Program, person, token_of
from tests.support.workshop import make_model

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "/v1/accounts/lab/"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def program(lab: Lab) -> Program:
    return Program(token_of(person("sam", lab.account, Role.SCIENTIST)))


def wish(lab: Lab, **more: Any) -> dict[str, Any]:
    return {"kind": "create_image", "manifest": lab.manifest.pk, "registry": "our registry", **more}


def test_it_describes_itself(program: Program) -> None:
    routes = {(route["method"], route["path"]): route for route in program.get("/v1/").json()["routes"]}
    asking = routes["POST", "/v1/accounts/{account}/operations/"]
    assert asking["needs"] == "Data scientist, scope write"
    assert routes["GET", "/v1/accounts/{account}/models/"]["needs"] == "Viewer"
    assert all(route["does"] for route in routes.values())


def test_a_list_is_read_page_by_page(lab: Lab, program: Program) -> None:
    for number in range(2, 62):
        make_model(lab.account, version=number)
    path, seen = f"{HERE}models/?sort=version", []
    while path:
        page = program.get(path).json()
        seen += [row["version"] for row in page["models"]]
        path = page["next"]
    assert seen == list(range(1, 62))
    assert (page["found"], page["pages"], page["page"]) == (61, 3, 3)


def test_a_list_is_searched_and_filtered_as_on_its_page(lab: Lab, program: Program) -> None:
    make_operation(lab.image, state=State.FAILED)
    found = program.get(f"{HERE}operations/?state=failed&kind=create_image").json()
    assert [row["kind"] for row in found["operations"]] == ["create_image"]
    assert program.get(f"{HERE}models/?q=nothing-like-it").json()["models"] == []
    assert program.get(f"{HERE}images/?model={lab.model.pk}").json()["found"] == 1


def test_unknown_parameters_of_a_list_are_rejected_by_name(lab: Lab, program: Program) -> None:
    for query in ("state=broken", "sort=size", "page=0", "page=x", "newest=yes", "color=red", "model=x"):
        answer = program.get(f"{HERE}models/?{query}")
        assert answer.status_code == 422, query
        assert list(answer.json()["error"]["fields"]) == [query.partition("=")[0]]


def test_the_whole_workflow_can_be_requested(lab: Lab, program: Program) -> None:
    body = {"kind": "register_model", "name": "rose", "url": "https://a.example/x?sig=secret-part", "tags": ["red"]}
    answer = program.post(f"{HERE}operations/", body)
    assert answer.status_code == 202
    operation = Operation.objects.get(pk=answer.json()["id"])
    assert (operation.requested_by, operation.state) == ("sam", "queued")
    assert RegisteredModel.objects.get(name="rose").tags == ["red"]
    assert answer.headers["Location"] == f"{HERE}operations/{operation.pk}/"
    shown = program.get(answer.headers["Location"])
    assert shown.json()["asked"]["url"] == "https://a.example/x?…"
    assert "secret-part" not in shown.text
    assert program.get(f"{HERE}models/{operation.model_id}/").json()["state"] == "queued"


def test_requests_are_audited_as_made_through_the_api(lab: Lab, program: Program) -> None:
    program.post(f"{HERE}operations/", wish(lab))
    program.post(f"{HERE}services/{lab.service.pk}/key/")
    program.post(f"{HERE}refresh/")
    program.get(f"{HERE}models/")
    program.post(f"{HERE}operations/", {"kind": "create_image"})
    entries = [(entry.actor, entry.action, entry.via, entry.result) for entry in AuditEntry.objects.order_by("pk")]
    assert entries == [("sam", "create_image", "api", "done"), ("sam", "show_key", "api", "done")]


def test_registries_and_clusters_are_given_by_name_and_unknown_ones_rejected(lab: Lab, program: Program) -> None:
    answer = program.post(f"{HERE}operations/", wish(lab, registry="theirs"))
    assert answer.status_code == 422
    assert "our registry" in answer.json()["error"]["fields"]["registry"][0]
    assert program.post(f"{HERE}operations/", wish(lab, registry=lab.registry.pk)).status_code == 202


def test_an_unknown_field_is_named(lab: Lab, program: Program) -> None:
    answer = program.post(f"{HERE}operations/", wish(lab, manifets=1))
    assert list(answer.json()["error"]["fields"]) == ["manifets"]
    assert not Image.objects.exclude(pk=lab.image.pk).exists()


def test_the_same_idempotency_key_creates_one_operation(lab: Lab, program: Program) -> None:
    first = program.post(f"{HERE}operations/", wish(lab), Idempotency_Key="build 7")
    again = program.post(f"{HERE}operations/", json.dumps(wish(lab), indent=4), Idempotency_Key="build 7")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    other = program.post(f"{HERE}operations/", wish(lab, description="other"), Idempotency_Key="build 7")
    assert other.status_code == 409
    assert Operation.objects.filter(kind="create_image").count() == 1
    theirs = Program(token_of(person("otto", lab.account, Role.OPERATOR)))
    assert theirs.post(f"{HERE}operations/", wish(lab), Idempotency_Key="build 7").status_code == 202


def test_a_rejected_request_can_be_corrected_and_sent_with_the_same_key(lab: Lab, program: Program) -> None:
    assert program.post(f"{HERE}operations/", wish(lab, manifest=0), Idempotency_Key="k").status_code == 422
    assert not SentOnce.objects.exists()
    assert program.post(f"{HERE}operations/", wish(lab), Idempotency_Key="k").status_code == 202


def test_idempotency_keys_expire_after_a_week(lab: Lab, program: Program) -> None:
    program.post(f"{HERE}operations/", wish(lab), Idempotency_Key="k")
    assert idempotency.prune() == 0
    SentOnce.objects.update(sent_at=timezone.now() - timedelta(days=8))
    assert idempotency.prune() == 1


def test_an_impossible_action_is_a_conflict(lab: Lab, program: Program) -> None:
    operator = Program(token_of(person("otto", lab.account, Role.OPERATOR)))
    deletion = {"kind": "delete_service", "service": "iris-live"}
    assert operator.post(f"{HERE}operations/", deletion).status_code == 202
    answer = operator.post(f"{HERE}operations/", deletion)
    assert answer.status_code == 409
    assert "open operation" in answer.json()["error"]["message"]


def test_operations_can_be_retried_canceled_and_settled(lab: Lab, program: Program) -> None:
    body = {"manifest": lab.manifest.pk, "registry": lab.registry.pk, "description": ""}
    failed = make_operation(lab.image, state=State.FAILED, body=body)
    Image.objects.filter(pk=lab.image.pk).update(mms_id=None)
    retried = program.post(f"{HERE}operations/{failed.pk}/retry/")
    assert retried.status_code == 202
    assert retried.json()["retry_of"] == str(failed.pk)
    canceled = program.post(f"{HERE}operations/{retried.json()['id']}/cancel/")
    assert canceled.json()["state"] == "canceled"
    doubt = make_operation(lab.model, state=State.UNCERTAIN, error_code=NEEDS_DECISION)
    assert list(program.post(f"{HERE}operations/{doubt.pk}/settle/").json()["error"]["fields"]) == ["send_again"]
    settled = program.post(f"{HERE}operations/{doubt.pk}/settle/", {"send_again": False})
    assert settled.json()["state"] == "failed"
    again = program.post(f"{HERE}operations/{doubt.pk}/settle/", {"send_again": False})
    assert again.status_code == 409


def test_a_throttled_program_gets_retry_after(lab: Lab, program: Program, settings: Any) -> None:
    settings.API_CALLS_PER_MINUTE = 3
    statuses = [program.get("/v1/").status_code for _ in range(8)]
    assert set(statuses) == {200, 429}  # at most two minutes
    refused = next(answer for answer in (program.get("/v1/") for _ in range(9)) if answer.status_code == 429)
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["error"]["code"] == "TooManyRequests"
    another = Program(token_of(person("otto", lab.account, Role.OPERATOR)))
    assert another.get("/v1/").status_code == 200


def test_logs_are_read_from_the_last_position(lab: Lab, program: Program) -> None:
    events.append_log(events.operation_log_key(lab.operation), ["one", "two"], 0)
    first = program.get(f"{HERE}operations/{lab.operation.pk}/log/")
    assert first.text == "one\ntwo\n"
    assert first.headers["Content-Type"].startswith("text/plain")
    events.append_log(events.operation_log_key(lab.operation), ["three"], 2)
    rest = program.get(f"{HERE}operations/{lab.operation.pk}/log/?after={first.headers['X-Log-Position']}")
    assert rest.text == "three\n"


def test_a_failing_service_is_distinguished_from_a_failing_api(lab: Lab, program: Program) -> None:
    answer = program.post(f"{HERE}services/{lab.service.pk}/test/", {"data": [1]})
    assert answer.status_code == 200
    assert answer.json()["status"] == 0
    assert "Nothing responds" in answer.json()["problem"]
    assert program.post(f"{HERE}services/{lab.service.pk}/test/", "{").status_code == 422


def test_internal_errors_are_json(lab: Lab, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.client.raise_request_exception = False
    for error, status in ((OperationalError("database is locked"), 503), (ZeroDivisionError("secret detail"), 500)):

        def broken(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setitem(SUBMIT, "create_image", broken)
        answer = program.post(f"{HERE}operations/", wish(lab))
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in {"NotNow", "Broken"}
        assert "secret detail" not in answer.text


def test_an_oversized_body_is_rejected_in_json_before_it_is_read_completely(lab: Lab) -> None:
    with Server(BodyLimit(fail_if_called)) as server:
        answer = requests.post(f"{server.url}/v1/accounts/lab/assets/", b"x" * 3_000_000, timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "TooLarge")
        page = requests.post(f"{server.url}/accounts/lab/assets/new/", b"x" * 3_000_000, timeout=20)
        assert page.headers["Content-Type"].startswith("text/html")


async def fail_if_called(*_: Any) -> None:
    raise AssertionError("not to be reached")


def test_every_route_works_without_the_slash_at_its_end() -> None:
    def match(path: str) -> tuple[Any, dict[str, Any]]:
        found = resolve(path)
        return found.url_name, found.kwargs

    values = {"account": "lab", "uuid": str(uuid4()), "pk": "7"}
    for endpoint in endpoints():
        path = endpoint.route.replace("<slug:account>", values["account"]).replace("<uuid:pk>", values["uuid"])
        path = f"/v1/{re.sub(r'<int:[a-z]+>', values['pk'], path)}"
        if path != "/v1/":
            assert match(path.removesuffix("/")) == match(path)
            assert match(path)[0] == endpoint.url_name
    assert resolve("/v1/accounts/lab/nothing").url_name == "v1_nothing"
    assert resolve("/v1/accounts/lab/models//").url_name == "v1_nothing"


def test_a_post_without_the_slash_keeps_its_body(lab: Lab, program: Program) -> None:
    answer = program.post(f"{HERE}operations", wish(lab))
    assert answer.status_code == 202
    assert str(Operation.objects.get(image__manifest=lab.manifest).pk) == answer.json()["id"]
    assert program.get(f"{HERE}models").json() == program.get(f"{HERE}models/").json()
