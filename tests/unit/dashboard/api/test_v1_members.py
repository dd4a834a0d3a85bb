"""Administration of members and their roles over the API."""

from typing import Any

import pytest

from dashboard.models import AuditEntry, Membership, Role, Source
from deployments.models import Operation
from deployments.models.operation import State
from tests.support.people import Lab, make_lab, make_operation
from tests.support.programs import Program, person, token_of

pytestmark = pytest.mark.django_db
HERE = "/v1/accounts/lab/members/"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def operator(lab: Lab) -> Program:
    return Program(token_of(person("otto", lab.account, Role.OPERATOR)))


def test_a_role_is_added_changed_and_removed(lab: Lab, operator: Program) -> None:
    person("nina")
    made = operator.post(HERE, {"name": "nina", "role": "viewer"})
    assert made.status_code == 201
    url = made.headers["Location"]
    assert operator.get(url).json() == made.json()
    Membership.objects.filter(user__username="nina").update(source=Source.PROVIDER)
    assert operator.send("PATCH", url, {"role": "scientist"}).json()["role"] == "scientist"
    assert Membership.objects.get(user__username="nina").source == Source.SITE
    assert [row["name"] for row in operator.get(HERE).json()["members"]] == ["mia-lab", "nina", "otto"]
    assert operator.send("DELETE", url).status_code == 204
    assert operator.get(url).status_code == 404
    kept = AuditEntry.objects.order_by("pk").values_list("action", "target", "before", "after", "via")
    assert list(kept) == [
        ("add_member", "nina", None, {"role": "viewer"}, "api"),
        ("change_member", "nina", {"role": "viewer"}, {"role": "scientist"}, "api"),
        ("remove_member", "nina", {"role": "scientist"}, {"role": ""}, "api"),
    ]


def test_invalid_members_are_rejected_by_field_and_nothing_is_stored(lab: Lab, operator: Program) -> None:
    wishes: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {"name", "role"}),
        ({"name": "nobody", "role": "viewer"}, {"name"}),
        ({"name": "mia-lab", "role": "operator"}, {"name"}),
        ({"name": "otto", "role": "administrator"}, {"name", "role"}),
        ({"name": "nina", "role": "viewer", "is_superuser": True}, {"is_superuser"}),
    ]
    for body, fields in wishes:
        answer = operator.post(HERE, body)
        assert answer.status_code == 422, body
        assert set(answer.json()["error"]["fields"]) == fields
    for body in ({}, {"role": "king"}, {"role": None}, {"role": ["viewer"]}):
        assert set(operator.send("PATCH", f"{HERE}{lab.member.pk}/", body).json()["error"]["fields"]) == {"role"}
    assert operator.send("DELETE", f"{HERE}{lab.member.pk}/", {"role": "viewer"}).status_code == 422
    assert set(Membership.objects.values_list("user__username", "role")) == {
        ("mia-lab", "viewer"),
        ("otto", "operator"),
    }


def test_queued_operations_of_a_removed_member_are_canceled(lab: Lab, operator: Program) -> None:
    Membership.objects.filter(pk=lab.member.pk).update(role=Role.SCIENTIST)
    waiting = make_operation(lab.image, state=State.QUEUED, requested_by="mia-lab")
    operator.send("PATCH", f"{HERE}{lab.member.pk}/", {"role": "viewer"})
    assert Operation.objects.get(pk=waiting.pk).state == State.CANCELED


def test_a_member_of_another_account_is_not_found(lab: Lab, operator: Program) -> None:
    other = make_lab("other")
    for method, body in (("GET", None), ("PATCH", {"role": "operator"}), ("DELETE", None)):
        assert operator.send(method, f"{HERE}{other.member.pk}/", body).status_code == 404
    other.member.refresh_from_db()
    assert other.member.role == Role.VIEWER
