"""Manifest form: finding one of ten thousand models, selecting the driver, and the result."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from dashboard.files.store import IncomingFile
from dashboard.forms.resources.manifest import MAX_SCRIPT_BYTES
from dashboard.models import Role
from deployments.models import Asset, HostingAccount, Manifest, Operation, RegisteredModel
from mms.images.plan import check
from tests.support.html import compact
from tests.support.workshop import make_account, make_asset, make_model, sign_in

pytestmark = pytest.mark.django_db
NEW = "/accounts/lab/manifests/new/"


@pytest.fixture
def account() -> HostingAccount:
    return make_account()


@pytest.fixture
def scientist(account: HostingAccount) -> Client:
    return sign_in("sam", account, Role.SCIENTIST)


def form(**more: Any) -> dict[str, Any]:
    return {"runtime_type": "ScikitPython", **more}


def test_selected_models_become_a_manifest_in_their_order(scientist: Client, account: HostingAccount) -> None:
    second, first = make_model(account, "scaler"), make_model(account, "iris", 3)
    driver, schema = make_asset(account), make_asset(account, "schema", "schema.json")
    picked = {"models": [first.pk, second.pk], "assets": [schema.pk, driver.pk], "driver": driver.pk}
    answer = scientist.post(NEW, form(**picked, pip_requirements="\nscikit-learn==1.5.2\n"))
    manifest = Manifest.objects.get()
    assert answer.headers["Location"] == f"/accounts/lab/manifests/{manifest.pk}/"
    assert manifest.model_ids == ["iris-3", "scaler-1"]
    assert [asset["id"] for asset in manifest.asset_list] == ["schema", "score"]
    assert manifest.driver_program == "score"
    assert manifest.properties["pip_requirements"] == "scikit-learn==1.5.2"


@pytest.mark.slow
def test_one_of_ten_thousand_models_is_found_by_name_and_version(
    scientist: Client, account: HostingAccount, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    rows = [{"name": f"model-{number // 4}", "version": number % 4 + 1} for number in range(10_000)]
    RegisteredModel.objects.bulk_create(
        RegisteredModel(account=account, mms_id=f"m{number}", url="https://m.example/", **row)
        for number, row in enumerate(rows)
    )
    picked = RegisteredModel.objects.get(name="model-7", version=2)
    with django_assert_max_num_queries(12):
        answer = scientist.get(NEW, {"part": "models", "models": str(picked.pk), "models-q": "model-1234 v3"})
    found = RegisteredModel.objects.get(name="model-1234", version=3)
    assert f'id="models-{found.pk}"' in answer.text
    assert f'value="{picked.pk}" id="models-{picked.pk}" checked' in compact(answer.text)
    assert answer.text.count('name="models"') == 2
    assert len(scientist.get(NEW).content) < 100_000


def test_the_newest_version_of_a_name_is_marked(scientist: Client, account: HostingAccount) -> None:
    make_model(account, version=1)
    make_model(account, version=2)
    text = scientist.get(NEW, {"part": "models"}).text
    assert text.count(">newest<") == 1
    assert text.index("iris v2") < text.index(">newest<") < text.index("iris v1")


def test_models_that_cannot_be_used_are_not_offered(scientist: Client, account: HostingAccount) -> None:
    make_model(account, "waiting", mms_id=None)
    make_model(make_account("elsewhere"), "foreign")
    text = scientist.get(NEW).text
    assert "waiting" not in text
    assert "foreign" not in text


def test_a_model_of_another_account_is_rejected(scientist: Client) -> None:
    foreign = make_model(make_account("elsewhere"), "foreign")
    answer = scientist.post(NEW, form(models=[foreign.pk]))
    assert answer.status_code == 422
    assert "A selected model no longer exists" in answer.text
    assert not Operation.objects.exists()


def test_without_javascript_a_search_preserves_the_form(scientist: Client, account: HostingAccount) -> None:
    model, other = make_model(account, "iris"), make_model(account, "tulip")
    typed = form(models=[model.pk], pip_requirements="numpy", **{"models-q": "tul", "do": "preview"})
    answer = scientist.post(NEW, typed)
    assert answer.status_code == 200
    assert f'id="models-{model.pk}" checked' in answer.text
    assert f'id="models-{other.pk}"' in answer.text
    assert ">\nnumpy</textarea>" in answer.text
    assert "Nothing was sent" not in answer.text


def test_the_only_script_among_the_assets_is_suggested_as_driver(scientist: Client, account: HostingAccount) -> None:
    score, schema = make_asset(account), make_asset(account, "schema", "schema.json")
    query: dict[str, str | list[str]] = {"part": "assets", "assets": [str(schema.pk), str(score.pk)]}
    text = scientist.get(NEW, query).text
    assert f'id="driver-{score.pk}" checked' in compact(text)
    assert f'id="driver-{schema.pk}" >' in compact(text)


def test_an_unmarked_script_requires_a_decision(scientist: Client, account: HostingAccount) -> None:
    model, score = make_model(account), make_asset(account)
    answer = scientist.post(NEW, form(models=[model.pk], assets=[score.pk]))
    assert answer.status_code == 422
    assert "choose “no driver”" in answer.text
    scientist.post(NEW, form(models=[model.pk], assets=[score.pk], driver="none"))
    assert Manifest.objects.get().driver_program == ""


def test_a_driver_that_is_not_selected_is_rejected(scientist: Client, account: HostingAccount) -> None:
    model, score, other = make_model(account), make_asset(account), make_asset(account, "other", "other.py")
    answer = scientist.post(NEW, form(models=[model.pk], assets=[score.pk], driver=other.pk))
    assert answer.status_code == 422
    assert "isn’t selected" in answer.text


@pytest.mark.parametrize(("name", "says"), [("score.py", "driver script “score”"), ("schema.json", "schema “schema”")])
def test_an_uploaded_driver_or_schema_of_more_than_1_mb_is_rejected(
    name: str, says: str, scientist: Client, account: HostingAccount
) -> None:
    incoming = IncomingFile()
    incoming.write([b"#" * (MAX_SCRIPT_BYTES + 1)])
    model, asset = make_model(account), make_asset(account, name.partition(".")[0], name)
    Asset.objects.filter(pk=asset.pk).update(url=incoming.store(name).url)
    driver = asset.pk if name == "score.py" else "none"
    answer = scientist.post(NEW, form(models=[model.pk], assets=[asset.pk], driver=driver))
    assert answer.status_code == 422
    assert f"The {says} is larger than 1 MB." in answer.text
    assert MAX_SCRIPT_BYTES == check.MAX_SCRIPT_BYTES


def test_two_assets_with_one_id_are_refused(scientist: Client, account: HostingAccount) -> None:
    model, one, two = make_model(account), make_asset(account), make_asset(account, "score", "newer.py")
    answer = scientist.post(NEW, form(models=[model.pk], assets=[one.pk, two.pk], driver=one.pk))
    assert answer.status_code == 422
    assert "Two of the selected assets have the ID “score”" in answer.text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"models": []}, "Choose at least one model"),
        ({"models": ["nonsense"]}, "no longer exists"),
        ({"runtime_type": "Fortran"}, "Fortran is not one of the available choices"),
        ({"conda_env_file": "dependencies:\n  - pip: [\n"}, "This file isn’t valid YAML (line 2)"),
        ({"conda_env_file": "just words"}, "An environment file needs keys"),
        ({"description": "d" * 513}, "at most 512 characters"),
    ],
)
def test_errors_are_shown_and_nothing_is_stored(
    scientist: Client, account: HostingAccount, wrong: dict[str, Any], words: str
) -> None:
    answer = scientist.post(NEW, {**form(models=[make_model(account).pk]), **wrong})
    assert answer.status_code == 422
    assert words in answer.text
    assert not Operation.objects.exists()


def test_a_byte_order_mark_is_removed(scientist: Client, account: HostingAccount) -> None:
    texts = {"pip_requirements": "\ufeffsix==1.16.0", "conda_env_file": "\ufeffdependencies: [python=3]"}
    scientist.post(NEW, form(models=[make_model(account).pk], **texts))
    properties = Manifest.objects.get().properties
    assert properties["pip_requirements"] == "six==1.16.0"
    assert properties["conda_env_file"] == "dependencies: [python=3]"


def test_a_conda_file_may_be_an_address(scientist: Client, account: HostingAccount) -> None:
    where = "https://files.example/environment.yml"
    scientist.post(NEW, form(models=[make_model(account).pk], conda_env_file=where))
    assert Manifest.objects.get().properties["conda_env_file"] == where


def test_a_clone_has_the_same_models_driver_and_requirements(scientist: Client, account: HostingAccount) -> None:
    model, score = make_model(account), make_asset(account)
    scientist.post(NEW, form(models=[model.pk], assets=[score.pk], driver=score.pk, pip_requirements="numpy"))
    text = scientist.get(NEW, {"clone": str(Operation.objects.get().pk)}).text
    assert f'id="models-{model.pk}" checked' in text
    assert f'id="driver-{score.pk}" checked' in compact(text)
    assert ">\nnumpy</textarea>" in text


def test_a_link_from_a_model_selects_it(scientist: Client, account: HostingAccount) -> None:
    model = make_model(account)
    assert f'id="models-{model.pk}" checked' in scientist.get(NEW, {"model": model.pk}).text
    assert scientist.get(NEW, {"model": "x"}).status_code == 200
    assert scientist.get(NEW, {"part": "nothing"}).status_code == 404


def test_a_manifest_is_cloned_from_its_own_page_too(scientist: Client, account: HostingAccount) -> None:
    scientist.post(NEW, form(models=[make_model(account).pk], pip_requirements="scikit-lern"))
    made = Manifest.objects.get()
    assert f"{NEW}?manifest={made.pk}" in scientist.get(f"/accounts/lab/manifests/{made.pk}/").text
    assert "scikit-lern" in scientist.get(NEW, {"manifest": made.pk}).text
    for unknown in ("", "x", made.pk + 1, "9" * 30):
        assert scientist.get(NEW, {"manifest": unknown}).status_code == 200


def test_an_oversized_form_is_rejected_with_a_message(scientist: Client) -> None:
    answer = scientist.post(NEW, form(pip_requirements="x" * 3_000_000))
    assert answer.status_code == 413
    assert "This request is too large" in answer.text
