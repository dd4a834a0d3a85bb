"""Only operators deploy to production and change services there."""

from typing import Any

import pytest
from django.test import Client

from dashboard.access.revocation import cancel_unauthorized_operations
from dashboard.models import Membership, Role
from deployments.models import Cluster, Operation, Service
from deployments.models.operation import Kind, State
from tests.support.people import Cast, Lab, make_cast, make_lab, make_operation
from tests.support.workshop import make_image

pytestmark = pytest.mark.django_db


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    """Return a lab whose only service was created by sam and runs in production."""
    lab = make_lab()
    Cluster.objects.filter(pk=lab.cluster.pk).update(production=True)
    Service.objects.filter(pk=lab.service.pk).update(cluster=lab.cluster, created_by="sam")
    return lab


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def deploy(client: Client, lab: Lab, cluster: Cluster) -> Any:
    form = {"name": "fresh", "image": lab.image.pk, "cluster": cluster.pk}
    return client.post(f"{lab.url}services/new/", form)


def test_only_operators_deploy_to_production(lab: Lab, cast: Cast) -> None:
    answer = deploy(cast.scientist, lab, lab.cluster)
    assert answer.status_code == 422
    assert not Operation.objects.filter(service__name="fresh").exists()
    assert deploy(cast.operator, lab, lab.cluster).status_code == 302


def test_a_data_scientist_deploys_outside_production_and_sees_where_not(lab: Lab, cast: Cast) -> None:
    playground = Cluster.objects.create(account=lab.account, name="playground", pull_secret="p")
    page = cast.scientist.get(f"{lab.url}services/new/").text
    assert f"Only operators can deploy to production clusters: {lab.cluster.name}." in page
    assert f'<option value="{lab.cluster.pk}"' not in page
    assert deploy(cast.scientist, lab, playground).status_code == 302


def test_the_form_says_if_all_clusters_are_for_production(lab: Lab, cast: Cast) -> None:
    assert "this account has only production clusters" in cast.scientist.get(f"{lab.url}services/new/").text


@pytest.mark.parametrize("act", ["update", "delete"])
def test_only_operators_change_services_in_production(act: str, lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}services/{lab.service.pk}/{act}/"
    form = {"image": make_image(lab.manifest).pk}
    refused = cast.scientist.post(url, form)
    assert refused.status_code == 403
    assert "runs in production" in refused.text
    assert cast.operator.post(url, form).status_code == 302


@pytest.mark.parametrize("act", ["retry", "cancel", "settle", "resume"])
def test_only_operators_manage_operations_in_production(act: str, lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}operations/{lab.operation.pk}/{act}/"
    assert cast.scientist.post(url).status_code == 403
    assert cast.operator.post(url).status_code == 302


def test_buttons_are_disabled_and_name_the_required_role(lab: Lab, cast: Cast) -> None:
    page = cast.scientist.get(f"{lab.url}services/{lab.service.pk}/").text
    assert page.count("runs in production. Changing it requires the “Operator” role.") == 2
    assert f"{lab.url}services/{lab.service.pk}/update/" not in page
    assert (
        f"{lab.url}services/{lab.service.pk}/update/" in cast.operator.get(f"{lab.url}services/{lab.service.pk}/").text
    )


def test_a_service_on_an_unknown_cluster_counts_as_production_if_there_is_one(lab: Lab, cast: Cast) -> None:
    Service.objects.filter(pk=lab.service.pk).update(cluster=None)
    url = f"{lab.url}services/{lab.service.pk}/update/"
    assert cast.scientist.get(url).status_code == 403
    Cluster.objects.update(production=False)
    assert cast.scientist.get(url).status_code == 200


def test_queued_operations_in_production_are_canceled_with_the_operator_role(lab: Lab, cast: Cast) -> None:
    waiting = make_operation(lab.service, Kind.UPDATE_SERVICE, State.QUEUED, requested_by="otto")
    assert cancel_unauthorized_operations() == 0
    Membership.objects.filter(user__username="otto").update(role=Role.SCIENTIST)
    assert cancel_unauthorized_operations() == 1
    waiting.refresh_from_db()
    assert waiting.state == State.CANCELED


def test_a_viewer_sees_disabled_buttons_with_the_required_role(lab: Lab, cast: Cast) -> None:
    for noun, label in [("models", "Register model"), ("images", "Build image"), ("services", "Deploy service")]:
        page = cast.viewer.get(f"{lab.url}{noun}/").text
        assert f'disabled title="This requires the “Data scientist” role.">{label}</button>' in page
