"""Building images, deploying, updating and deleting services."""

import pytest
from django.test import Client

from dashboard.models import Role
from deployments.models import HostingAccount, Image, Manifest, Operation, Service
from tests.support.html import compact
from tests.support.lifecycle import present
from tests.support.workshop import (
    KUBE_CONFIG,
    REGISTRY_PASSWORD,
    SCORING_KEY,
    make_account,
    make_asset,
    make_cluster,
    make_image,
    make_manifest,
    make_model,
    make_registry,
    make_service,
    sign_in,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> HostingAccount:
    return make_account()


@pytest.fixture
def scientist(account: HostingAccount) -> Client:
    return sign_in("sam", account, Role.SCIENTIST)


@pytest.fixture
def manifest(account: HostingAccount) -> Manifest:
    return make_manifest(account, make_model(account), description="flowers")


@pytest.fixture
def service(manifest: Manifest) -> Service:
    return make_service(make_image(manifest), created_by="somebody else", scoring_uri="http://127.0.0.1:9/score")


def test_an_image_is_requested_without_revealing_the_password(
    scientist: Client, account: HostingAccount, manifest: Manifest
) -> None:
    registry = make_registry(account)
    page = scientist.get("/accounts/lab/images/new/", {"manifest": manifest.pk})
    assert f'id="manifest-{manifest.pk}" checked' in page.text
    wanted = {"manifest": manifest.pk, "registry": registry.pk, "description": "first"}
    preview = scientist.post("/accounts/lab/images/new/", {**wanted, "do": "preview"}, headers={"HX-Request": "true"})
    assert "&quot;imageType&quot;: &quot;Docker&quot;" in preview.text
    assert REGISTRY_PASSWORD not in page.text + preview.text
    answer = scientist.post("/accounts/lab/images/new/", wanted)
    image = Image.objects.get()
    assert answer.headers["Location"] == f"/accounts/lab/images/{image.pk}/"
    assert (image.manifest, image.registry, image.description) == (manifest, registry, "first")


def test_a_missing_registry_is_explained(scientist: Client, manifest: Manifest) -> None:
    assert "no registry yet" in scientist.get("/accounts/lab/images/new/").text
    answer = scientist.post("/accounts/lab/images/new/", {"manifest": manifest.pk})
    assert answer.status_code == 422
    assert "Choose a registry" in answer.text


def test_manifests_are_found_by_the_models_in_them(
    scientist: Client, account: HostingAccount, manifest: Manifest
) -> None:
    other = make_manifest(account, make_model(account, "tulip"), description="other")
    text = scientist.get("/accounts/lab/images/new/", {"part": "manifest", "manifest-q": "tulip"}).text
    assert f'id="manifest-{other.pk}"' in text
    assert f'id="manifest-{manifest.pk}"' not in text


def test_a_service_is_deployed_without_revealing_the_kubeconfig(
    scientist: Client, account: HostingAccount, manifest: Manifest
) -> None:
    image, cluster = make_image(manifest), make_cluster(account)
    page = scientist.get("/accounts/lab/services/new/", {"image": image.pk})
    assert f'id="image-{image.pk}" checked' in page.text
    wanted = {"name": "iris-live", "image": image.pk, "cluster": cluster.pk}
    preview = scientist.post("/accounts/lab/services/new/", {**wanted, "do": "preview"}, headers={"HX-Request": "true"})
    assert "acrImagePullSecret" in preview.text
    assert KUBE_CONFIG not in page.text + preview.text
    answer = scientist.post("/accounts/lab/services/new/", wanted)
    service = Service.objects.get()
    assert answer.headers["Location"] == f"/accounts/lab/services/{service.pk}/"
    assert (service.name, service.image, service.cluster, service.created_by) == ("iris-live", image, cluster, "sam")


def test_a_name_in_use_is_an_error_at_the_field(scientist: Client, service: Service) -> None:
    wanted = {"name": service.name, "image": service.image_id, "cluster": service.cluster_id}
    answer = scientist.post("/accounts/lab/services/new/", wanted)
    assert answer.status_code == 422
    assert 'id="id_name_error"' in answer.text
    assert "A service named “iris-live” already exists" in answer.text


@pytest.mark.parametrize(("name", "words"), [("two words", "Remove a blank"), ("-x", "Start with a letter")])
def test_invalid_service_names_are_rejected(scientist: Client, service: Service, name: str, words: str) -> None:
    answer = scientist.post(
        "/accounts/lab/services/new/", {"name": name, "image": service.image_id, "cluster": service.cluster_id}
    )
    assert answer.status_code == 422
    assert words in answer.text


def test_an_update_shows_what_changes_before_it_is_sent(
    scientist: Client, account: HostingAccount, service: Service
) -> None:
    make_asset(account)
    newer = make_manifest(account, make_model(account, version=2), properties={"pip_requirements": "numpy==2"})
    image = make_image(newer, "second image")
    text = scientist.get(f"/accounts/lab/services/{service.pk}/update/", {"image": image.pk}).text
    assert "<td>iris v1</td><td>iris v2</td>" in compact(text)
    assert "+numpy==2" in text
    assert "the dashboard can’t tell whether requests fail" in compact(text)
    answer = scientist.post(f"/accounts/lab/services/{service.pk}/update/", {"image": image.pk})
    assert answer.headers["Location"] == f"/accounts/lab/services/{service.pk}/"
    assert Operation.objects.get().body == {"service": service.pk, "image": image.pk}


def test_the_preview_shows_the_changes_of_the_selected_image(scientist: Client, service: Service) -> None:
    image = make_image(make_manifest(service.account, make_model(service.account, version=2)), "second image")
    url = f"/accounts/lab/services/{service.pk}/update/"
    answer = scientist.post(url, {"image": image.pk, "do": "preview"}, headers={"HX-Request": "true"})
    assert 'hx-swap-oob="true"' in answer.text
    assert "<td>iris v1</td><td>iris v2</td>" in compact(answer.text)
    assert "imageId" in answer.text


def test_the_running_image_is_not_an_update(scientist: Client, service: Service) -> None:
    url = f"/accounts/lab/services/{service.pk}/update/"
    assert "runs now" in scientist.get(url).text
    answer = scientist.post(url, {"image": service.image_id})
    assert answer.status_code == 422
    assert "already runs this image" in answer.text


def test_a_second_operation_is_rejected_and_names_the_open_one(scientist: Client, service: Service) -> None:
    image = make_image(present(present(service.image).manifest), "second image")
    url = f"/accounts/lab/services/{service.pk}/update/"
    scientist.post(url, {"image": image.pk})
    assert "is in progress for this service" in compact(scientist.get(url).text)
    answer = scientist.post(url, {"image": image.pk})
    assert answer.status_code == 422
    assert str(Operation.objects.get().pk) in answer.text


def test_deleting_shows_what_depends_on_the_service_first(account: HostingAccount, service: Service) -> None:
    operator = sign_in("olga", account, Role.OPERATOR)
    url = f"/accounts/lab/services/{service.pk}/delete/"
    text = operator.get(url).text
    assert service.scoring_uri in text
    assert "iris v1" in text
    assert SCORING_KEY not in text
    assert not Operation.objects.exists()
    operation_page = operator.post(url).headers["Location"]
    operation = Operation.objects.get()
    assert operation_page == f"/accounts/lab/operations/{operation.pk}/"
    assert (operation.kind, operation.service) == ("delete_service", service)
    assert "is in progress" in compact(operator.get(url).text)
    assert operator.post(url).status_code == 422


def test_a_scientist_deletes_own_services_only(scientist: Client, service: Service) -> None:
    url = f"/accounts/lab/services/{service.pk}/delete/"
    refusal = scientist.post(url)
    assert refusal.status_code == 403
    assert not Operation.objects.exists()
    Service.objects.update(created_by="sam")
    assert scientist.post(url).status_code == 302


def test_services_of_other_accounts_are_invisible(scientist: Client) -> None:
    elsewhere = make_account("elsewhere")
    foreign = make_service(make_image(make_manifest(elsewhere)))
    for page in ("update", "delete", "test", "log", "key"):
        for prefix in ("lab", "elsewhere"):
            assert scientist.post(f"/accounts/{prefix}/services/{foreign.pk}/{page}/").status_code == 404
