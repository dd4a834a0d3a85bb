"""API calls shown beside every form: they do the same, contain no secrets, and are safe in a shell."""

import ast
import json
import re
import shlex
from html import unescape
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard.files.store import IncomingFile
from dashboard.forms import snippets
from dashboard.models import Role
from deployments.models import Asset, Operation
from tests.support.lifecycle import present
from tests.support.people import Cast, Lab, make_cast, make_lab
from tests.support.programs import Program, person, token_of
from tests.support.workshop import make_image
from tests.twins import examples

pytestmark = pytest.mark.django_db
NASTY = "it's \"quoted\" $HOME `id` $(id) !! \\ \u202e € 'x'"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.sampled_from(["'", "'\"'", "\n", NASTY])


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def shown(page: str, what: str) -> str:
    """Return the text of a command on a page: `curl`, `python` or `upload`."""
    return unescape(present(re.search(f'id="command-{what}"[^>]*>(.*?)</pre>', page, re.DOTALL))[1])


def in_shell(curl: str) -> dict[str, Any]:
    """Return the body that curl sends when a shell runs the line."""
    words = shlex.split(curl.replace("\\\n", ""))
    assert words[0] == "curl"
    assert "Authorization: Bearer $DASHBOARD_TOKEN" in words
    body: dict[str, Any] = json.loads(words[words.index("--data") + 1])
    return body


def in_python(text: str) -> dict[str, Any]:
    """Return the body that requests sends when Python runs the code."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return next(ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "json")


def preview(browser: Client, url: str, form: dict[str, Any]) -> str:
    return browser.post(url, {**form, "do": "preview"}, headers={"HX-Request": "true"}).text


def forms(lab: Lab) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a completed form of each kind: the URL of its page, and the fields."""
    newer = make_image(lab.manifest)
    return {
        "register_model": ("models/new/", {"name": "rose", "url": "https://a.example/x?v=3", "description": NASTY}),
        "create_manifest": (
            "manifests/new/",
            {"models": [lab.model.pk], "assets": [lab.asset.pk], "driver": lab.asset.pk, "runtime_type": "Python"},
        ),
        "create_image": ("images/new/", {"manifest": lab.manifest.pk, "registry": lab.registry.pk}),
        "create_service": ("services/new/", {"name": "new", "image": newer.pk, "cluster": lab.cluster.pk}),
        "update_service": (f"services/{lab.service.pk}/update/", {"image": newer.pk}),
    }


@pytest.mark.parametrize(
    "kind", ["register_model", "create_manifest", "create_image", "create_service", "update_service"]
)
def test_the_command_of_a_form_does_the_same_as_the_form(kind: str, lab: Lab, cast: Cast) -> None:
    address, form = forms(lab)[kind]
    page = preview(cast.scientist, f"{lab.url}{address}", form)
    body = in_shell(shown(page, "curl"))
    assert body == in_python(shown(page, "python"))
    assert body["kind"] == kind
    cast.scientist.post(f"{lab.url}{address}", form)
    by_page = Operation.objects.get(kind=kind, body__isnull=False, requested_by="sam", state="queued")
    Operation.objects.filter(pk=by_page.pk).update(state="failed")
    if kind == "create_service":
        body["name"] = "another"
    answer = Program(token_of(person("sam"))).post("/v1/accounts/lab/operations/", body)
    assert answer.status_code == 202, answer.content
    by_api = Operation.objects.get(pk=answer.json()["id"])
    assert {**by_api.body, "name": ""} == {**by_page.body, "name": ""}


def test_the_page_of_an_operation_shows_its_command(lab: Lab, cast: Cast) -> None:
    address, form = forms(lab)["register_model"]
    cast.scientist.post(f"{lab.url}{address}", form)
    operation = Operation.objects.get(kind="register_model")
    page = cast.viewer.get(f"{lab.url}operations/{operation.pk}/").text
    body = in_shell(shown(page, "curl"))
    assert (body["kind"], body["name"], body["description"]) == ("register_model", "rose", NASTY)


def test_the_page_that_deletes_shows_the_command(lab: Lab, cast: Cast) -> None:
    page = cast.operator.get(f"{lab.url}services/{lab.service.pk}/delete/").text
    body = in_shell(shown(page, "curl"))
    assert body == {"kind": "delete_service", "service": lab.service.pk}
    assert Program(token_of(person("otto"))).post("/v1/accounts/lab/operations/", body).status_code == 202


def test_an_asset_has_a_command_too_and_a_preview_stores_nothing(lab: Lab, cast: Cast) -> None:
    form = {"name": "labels", "url": "https://a.example/labels.txt"}
    page = preview(cast.scientist, f"{lab.url}assets/new/", form)
    assert cast.scientist.post(f"{lab.url}assets/new/", {**form, "do": "preview"}).status_code == 200
    assert not Asset.objects.filter(name="labels").exists()
    assert "/v1/accounts/lab/assets/" in shown(page, "curl")
    answer = Program(token_of(person("sam"))).post("/v1/accounts/lab/assets/", in_shell(shown(page, "curl")))
    assert answer.status_code == 201
    assert Asset.objects.get(name="labels").url == form["url"]


def test_the_key_of_an_upload_is_in_no_command(lab: Lab, cast: Cast) -> None:
    incoming = IncomingFile()
    incoming.write([b"a model"])
    stored = incoming.store("rose.pkl")
    key = stored.url.partition("key=")[2]
    form = {"name": "rose", "file": stored.token}
    page = preview(cast.scientist, f"{lab.url}models/new/", form)
    assert key not in page
    assert in_shell(shown(page, "curl"))["file"] == stored.token
    cast.scientist.post(f"{lab.url}models/new/", form)
    operation = Operation.objects.get(kind="register_model")
    told = cast.viewer.get(f"{lab.url}operations/{operation.pk}/").text
    assert key not in told
    assert stored.token not in told  # with it, a viewer could register the file in another account
    assert in_shell(shown(told, "curl"))["file"] == "…"
    assert "-F file=@" in shown(told, "upload")


@pytest.mark.parametrize("url", ["https://me:s3cret-word@a.example/x", "https://a.example/x?sig=s3cret-word"])
def test_no_command_contains_credentials_of_a_url(url: str, lab: Lab, cast: Cast) -> None:
    cast.scientist.post(f"{lab.url}models/new/", {"name": "rose", "url": "https://a.example/x"})
    operation = Operation.objects.get(kind="register_model")
    operation.body["url"] = url  # requests of earlier releases can have credentials before the host
    command = snippets.build_operation_snippet(operation)
    assert "s3cret-word" not in f"{command}"


@settings(
    max_examples=examples(50, 200),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fields=st.dictionaries(st.sampled_from(["name", "description", "pip_requirements"]), TEXT, min_size=1))
def test_a_shell_and_python_read_back_what_was_written(fields: dict[str, str], lab: Lab, record: Any) -> None:
    record["texts"] = record.get("texts", 0) + 1
    command = snippets.build_operation_snippet(Operation(account=lab.account, kind="register_model", body=fields))
    expected = {"kind": "register_model", **{name: text for name, text in fields.items() if text}}
    assert in_shell(command.curl) == expected
    assert in_python(command.python) == expected
    assert "\u202e" not in command.curl + command.python


def test_a_viewer_sees_no_form_and_so_no_command(lab: Lab, cast: Cast) -> None:
    person("vera", lab.account, Role.VIEWER)
    assert cast.viewer.get(f"{lab.url}models/new/").status_code == 403
