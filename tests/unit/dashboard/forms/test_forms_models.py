"""Forms for models and assets: by URL, by upload, and with error messages."""

import json
import re
from html import unescape

import pytest
from django.conf import settings
from django.test import Client

from dashboard.files.store import IncomingFile, StoredFile
from dashboard.models import AuditEntry, Role
from deployments.models import Asset, HostingAccount, Operation, RegisteredModel
from tests.support.workshop import make_account, make_model, sign_in

pytestmark = pytest.mark.django_db
NEW = "/accounts/lab/models/new/"


@pytest.fixture
def account() -> HostingAccount:
    return make_account()


@pytest.fixture
def scientist(account: HostingAccount) -> Client:
    return sign_in("sam", account, Role.SCIENTIST)


def keep(content: bytes = b"a model", name: str = "iris.pkl") -> StoredFile:
    incoming = IncomingFile()
    incoming.write([content])
    return incoming.store(name)


def form(**more: str) -> dict[str, str]:
    return {"name": "iris", "url": "https://models.example/iris.pkl", **more}


def test_a_url_creates_a_model_and_an_operation_and_redirects_to_its_page(scientist: Client) -> None:
    answer = scientist.post(NEW, form(tags="flowers, small", description="Logistic\r\nregression"))
    model = RegisteredModel.objects.get()
    assert answer.headers["Location"] == f"/accounts/lab/models/{model.pk}/"
    assert (model.tags, model.description) == (["flowers", "small"], "Logistic regression")
    operation = Operation.objects.get()
    assert (operation.kind, operation.requested_by, operation.model) == ("register_model", "sam", model)


@pytest.mark.parametrize("url", ["https://user:secret@models.example/m.pkl", "https://user@models.example/m.pkl"])
def test_a_url_with_credentials_is_not_stored(scientist: Client, url: str) -> None:
    for path in (NEW, "/accounts/lab/assets/new/"):
        answer = scientist.post(path, form(url=url))
        assert answer.status_code == 422
        assert "Remove the user name and password" in answer.text
    for field in ("pip_requirements", "conda_env_file"):
        answer = scientist.post("/accounts/lab/manifests/new/", {field: url})
        assert "Remove the user name and password" in answer.text
    assert not RegisteredModel.objects.exists()
    assert not Asset.objects.exists()


def test_a_form_submitted_three_times_registers_one_version(scientist: Client) -> None:
    key = hidden_key(scientist.get(NEW).text)
    answers = [scientist.post(NEW, form(form_key=key)) for _ in range(3)]
    model = RegisteredModel.objects.get()
    assert {answer.headers["Location"] for answer in answers} == {f"/accounts/lab/models/{model.pk}/"}
    assert Operation.objects.count() == 1
    assert AuditEntry.objects.filter(action="register_model").count() == 1


def test_a_form_submitted_three_times_adds_one_asset(scientist: Client) -> None:
    path = "/accounts/lab/assets/new/"
    key = hidden_key(scientist.get(path).text)
    assert len({scientist.post(path, form(form_key=key)).headers["Location"] for _ in range(3)}) == 1
    assert Asset.objects.count() == 1


def test_a_corrected_or_changed_form_is_submitted_although_its_key_is_the_same(scientist: Client) -> None:
    key = hidden_key(scientist.get(NEW).text)
    assert scientist.post(NEW, form(form_key=key, url="nonsense")).status_code == 422
    assert scientist.post(NEW, form(form_key=key)).status_code == 302
    assert scientist.post(NEW, form(form_key=key, name="rose")).status_code == 302
    assert set(RegisteredModel.objects.values_list("name", flat=True)) == {"iris", "rose"}


def test_the_same_content_in_another_form_registers_another_version(scientist: Client) -> None:
    for _ in range(2):
        scientist.post(NEW, form(form_key=hidden_key(scientist.get(NEW).text)))
    assert Operation.objects.count() == 2


def hidden_key(page: str) -> str:
    """Return the key in the form of a page."""
    found = re.search(r'name="form_key" value="([^"]+)"', page)
    assert found
    return found[1]


def test_an_uploaded_file_is_registered_under_a_url_that_no_page_shows(scientist: Client) -> None:
    stored = keep()
    key = stored.url.partition("key=")[2]
    page = scientist.get(NEW, {"file": stored.token})
    assert "iris.pkl" in page.text
    preview = scientist.post(
        NEW, {"name": "iris", "file": stored.token, "do": "preview"}, headers={"HX-Request": "true"}
    )
    assert stored.sha256 in preview.text
    assert key not in page.text + preview.text
    scientist.post(NEW, {"name": "iris", "file": stored.token})
    model = RegisteredModel.objects.get()
    assert model.url == stored.url
    assert model.url.startswith(f"{settings.FILES_URL}/files/{stored.sha256}/iris.pkl?key=")


def test_a_forged_or_deleted_upload_is_rejected(scientist: Client) -> None:
    answer = scientist.post(NEW, {"name": "iris", "file": "forged"})
    assert answer.status_code == 422
    assert "no longer exists" in answer.text
    assert not RegisteredModel.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "my_model v2"}, "Remove a blank and “_”"),
        ({"name": ""}, "This field is required"),
        ({"name": "x" * 33}, "at most 32 characters"),
        ({"url": ""}, "Upload a file or enter its URL"),
        ({"url": "s3://bucket/iris.pkl"}, "starting with http:// or https://"),
        ({"url": "https://"}, "starting with http:// or https://"),
        ({"url": "http://[::1/x"}, "starting with http:// or https://"),
        ({"tags": "fine, not-fine"}, "Remove “-” from “not-fine”"),
        ({"tags": "y" * 30}, "A tag can have at most 29"),
        ({"description": "z" * 201}, "at most 200 characters"),
        ({"mime_type": "pickle"}, "application/octet-stream"),
    ],
)
def test_errors_are_shown_beside_their_fields_and_nothing_is_stored(
    scientist: Client, wrong: dict[str, str], words: str
) -> None:
    answer = scientist.post(NEW, form(**wrong))
    assert answer.status_code == 422
    assert words in answer.text
    assert f'id="id_{next(iter(wrong))}_error"' in answer.text
    assert not Operation.objects.exists()


def test_file_and_address_together_are_refused(scientist: Client) -> None:
    answer = scientist.post(NEW, form(file=keep().token))
    assert answer.status_code == 422
    assert "A file is already uploaded" in answer.text


def test_the_preview_shows_the_json_and_sends_nothing(scientist: Client, account: HostingAccount) -> None:
    make_model(account, version=4)
    answer = scientist.post(NEW, form(do="preview"))
    assert answer.status_code == 200
    assert "&quot;mimeType&quot;: &quot;application/octet-stream&quot;" in answer.text
    assert "up to version 4" in answer.text
    assert 'value="https://models.example/iris.pkl"' in answer.text
    assert not Operation.objects.exists()


def test_an_incomplete_form_can_be_previewed_without_errors(scientist: Client) -> None:
    answer = scientist.post(NEW, {"name": "iris", "do": "preview"})
    assert answer.status_code == 200
    assert "Complete these fields first" in answer.text
    assert "Nothing was sent" not in answer.text


def test_a_clone_starts_with_the_values_of_the_original(scientist: Client) -> None:
    scientist.post(NEW, form(tags="flowers"))
    answer = scientist.get(NEW, {"clone": str(Operation.objects.get().pk)})
    assert 'value="iris"' in answer.text
    assert 'value="flowers"' in answer.text
    assert scientist.get(NEW, {"clone": "not-a-uuid"}).status_code == 404


def test_a_failed_upload_without_javascript_shows_the_reason(scientist: Client) -> None:
    assert "larger than this site accepts" in scientist.get(NEW, {"upload_error": "too_large"}).text
    assert "couldn’t be stored" in scientist.get(NEW, {"upload_error": "<b>"}).text


def test_a_denied_user_sees_the_required_role(account: HostingAccount) -> None:
    viewer = sign_in("vera", account, Role.VIEWER)
    assert viewer.get(NEW).status_code == 403
    assert viewer.post(NEW, form()).status_code == 403
    assert sign_in("stranger").post(NEW, form()).status_code == 404
    assert Client().post(NEW, form()).status_code == 302
    assert not Operation.objects.exists()


def test_an_asset_is_stored_and_its_type_guessed(scientist: Client) -> None:
    answer = scientist.post(
        "/accounts/lab/assets/new/", {"name": "score", "file": keep(b"def init(): ...", "score.py").token}
    )
    asset = Asset.objects.get()
    assert answer.headers["Location"] == f"/accounts/lab/assets/{asset.pk}/"
    assert (asset.name, asset.mime_type, asset.created_by) == ("score", "text/x-python", "sam")
    wrong = scientist.post("/accounts/lab/assets/new/", {"name": "score.py", "url": "https://a.example/score.py"})
    assert wrong.status_code == 422
    assert "Remove “.”" in wrong.text


def test_the_json_of_the_preview_is_json(scientist: Client) -> None:
    answer = scientist.post(NEW, form(do="preview", description='say "hi" <b>'), headers={"HX-Request": "true"})
    text = answer.text.partition("<pre")[2].partition(">")[2].partition("</pre>")[0]
    assert "<b>" not in text
    assert json.loads(unescape(text))["description"] == 'say "hi" <b>'
