"""Members and roles, the queued operations of users who lost a role, and the audit page."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.access.revocation import cancel_unauthorized_operations
from dashboard.models import AuditEntry, Membership
from deployments.models import Operation
from deployments.models.operation import Kind, State
from tests.support.people import Cast, Lab, make_cast, make_lab, make_operation
from tests.support.workshop import make_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def role_of(name: str, lab: Lab) -> str:
    found = Membership.objects.filter(user__username=name, account_id=lab.account.pk).first()
    return found.role if found else ""


def test_an_operator_adds_changes_and_removes_a_role_and_it_is_audited(lab: Lab, cast: Cast) -> None:
    members = f"{lab.url}members/"
    assert cast.operator.post(members, {"name": "stella", "role": "viewer"}).status_code == 302
    assert role_of("stella", lab) == "viewer"
    pk = Membership.objects.get(user__username="stella", account_id=lab.account.pk).pk
    cast.operator.post(f"{members}{pk}/", {"role": "scientist"})
    assert role_of("stella", lab) == "scientist"
    assert cast.stranger.get(lab.url).status_code == 200
    cast.operator.post(f"{members}{pk}/remove/")
    assert cast.stranger.get(lab.url).status_code == 404
    found = [(entry.action, entry.target, entry.before, entry.after) for entry in AuditEntry.objects.order_by("pk")]
    assert found == [
        ("add_member", "stella", None, {"role": "viewer"}),
        ("change_member", "stella", {"role": "viewer"}, {"role": "scientist"}),
        ("remove_member", "stella", {"role": "scientist"}, {"role": ""}),
    ]


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [
        ("", "viewer", "Enter the person’s username"),
        ("nobody", "viewer", "No active user has this name"),
        ("VERA", "viewer", "No active user has this name"),
        ("vera", "viewer", "They already have a role in this account"),
        ("ada", "viewer", "don’t need a role"),
        ("stella", "king", "Select a valid choice"),
        ("stella", "", "This field is required"),
    ],
)
def test_the_field_says_who_cannot_be_added(name: str, role: str, says: str, lab: Lab, cast: Cast) -> None:
    before = Membership.objects.count()
    answer = cast.operator.post(f"{lab.url}members/", {"name": name, "role": role})
    assert answer.status_code == 422
    assert says in answer.text
    assert Membership.objects.count() == before


def test_an_invalid_role_changes_nothing(lab: Lab, cast: Cast) -> None:
    answer = cast.operator.post(f"{lab.url}members/{lab.member.pk}/", {"role": "king"}, follow=True)
    assert "Nothing was changed" in answer.text
    assert role_of("mia-lab", lab) == "viewer"


def test_members_of_another_account_are_not_found(lab: Lab, cast: Cast) -> None:
    other = Membership.objects.get(user__username="stella")
    assert cast.operator.post(f"{lab.url}members/{other.pk}/remove/").status_code == 404
    assert Membership.objects.filter(pk=other.pk).exists()


def test_removing_your_own_role_redirects_home(lab: Lab, cast: Cast) -> None:
    own = Membership.objects.get(user__username="otto")
    assert cast.operator.post(f"{lab.url}members/{own.pk}/remove/").headers["Location"] == "/"


@pytest.mark.parametrize(
    ("person", "role"),
    [("viewer", "Viewer"), ("scientist", "Data scientist"), ("operator", "Operator"), ("admin", "Administrator")],
)
def test_the_page_lists_your_permissions_and_who_can_grant_more(person: str, role: str, lab: Lab, cast: Cast) -> None:
    page = cast.everybody()[person].get(f"{lab.url}roles/").text
    assert f"Your role here: <strong>{role}</strong>" in page
    assert f'<th scope="col" aria-current="true">{role}</th>' in page
    assert ("otto, " in page or "otto." in page) == (person in {"viewer", "scientist"})
    assert "Build images" in page


def test_a_denial_links_to_your_permissions(lab: Lab, cast: Cast) -> None:
    assert f"{lab.url}roles/" in cast.viewer.get(f"{lab.url}models/new/").text


# --- queued operations of users who lost a permission


def queued(lab: Lab, by: str, **more: Any) -> Operation:
    row = make_model(lab.account, name="waiting", mms_id=None)
    return make_operation(row, Kind.REGISTER_MODEL, State.QUEUED, requested_by=by, **more)


def test_queued_operations_are_canceled_when_the_requester_loses_permission(lab: Lab, cast: Cast) -> None:
    waiting = queued(lab, "sam")
    pk = Membership.objects.get(user__username="sam").pk
    cast.operator.post(f"{lab.url}members/{pk}/", {"role": "viewer"})
    waiting.refresh_from_db()
    assert (waiting.state, waiting.error_code) == (State.CANCELED, "NoLongerAllowed")
    assert "sam no longer has permission for this" in waiting.error_message
    entry = AuditEntry.objects.get(action="withdraw_operation")
    assert (entry.via, entry.account_id) == ("system", lab.account.pk)


@pytest.mark.parametrize("how", ["removed", "deactivated"])
def test_queued_operations_are_canceled_however_the_permission_was_lost(how: str, lab: Lab, cast: Cast) -> None:
    waiting = queued(lab, "sam")
    if how == "removed":
        Membership.objects.filter(user__username="sam").delete()
    else:
        get_user_model().objects.filter(username="sam").update(is_active=False)
    assert cancel_unauthorized_operations() == 1
    waiting.refresh_from_db()
    assert waiting.state == State.CANCELED


def test_operations_that_are_allowed_or_sent_or_from_a_command_continue(lab: Lab, cast: Cast) -> None:
    kept = [queued(lab, "sam"), queued(lab, "demo"), queued(lab, "ada"), queued(lab, "vera", attempts=1)]
    assert cancel_unauthorized_operations() == 0
    assert {Operation.objects.get(pk=operation.pk).state for operation in kept} == {State.QUEUED}


# --- the audit page


def entry(actor: str, account: Any = None, **more: Any) -> AuditEntry:
    known = {"action": "register_model", "result": "done", "target": f"of {actor}"}
    if account:
        known |= {"account_id": account.pk, "account_name": account.name}
    return AuditEntry.objects.create(actor=actor, **{**known, **more})


@pytest.fixture
def story(lab: Lab, cast: Cast) -> None:
    entry("sam", lab.account, after={"name": "iris"}, address="203.0.113.9")
    entry("otto", lab.account, action="delete_service", result="refused")
    entry("ann", action="sign_in")
    entry("stella", Membership.objects.get(user__username="stella") and make_lab("far").account)


def found(client: Client, **query: str) -> set[str]:
    page = client.get("/audit/", query).text
    return {name for name in ("sam", "otto", "ann", "stella") if f"of {name}" in page}


def test_operators_see_their_accounts_and_administrators_see_everything(story: None, cast: Cast) -> None:
    assert found(cast.operator) == {"sam", "otto"}
    assert found(cast.admin) == {"sam", "otto", "ann", "stella"}
    assert cast.scientist.get("/audit/").status_code == 403
    assert "far" not in cast.operator.get("/audit/").text.replace("far/", "")


def test_every_filter_narrows_what_is_shown(story: None, cast: Cast) -> None:
    for query, names in [
        ({"actor": "sam"}, {"sam"}),
        ({"action": "sign_in"}, {"ann"}),
        ({"account": "lab"}, {"sam", "otto"}),
        ({"result": "refused"}, {"otto"}),
        ({"q": "of stella"}, {"stella"}),
        ({"q": "203.0.113"}, {"sam"}),
        ({"since": "2000-01-01"}, {"sam", "otto", "ann", "stella"}),
        ({"until": "2000-01-01"}, set()),
        ({"since": "no date"}, set()),
        ({"action": "no such"}, set()),
    ]:
        assert found(cast.admin, **query) == names, query


def test_the_file_has_the_same_rows_and_no_cell_is_a_formula(story: None, lab: Lab, cast: Cast) -> None:
    entry("=cmd|' /C calc'!A0", lab.account, target='+1,"2"')
    answer = cast.operator.get("/audit/", {"format": "csv", "account": "lab"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    lines = answer.text.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("at,actor,via,action")
    assert "'=cmd" in answer.text
    assert '"\'+1,""2"""' in answer.text
    assert '""name"": ""iris""' in answer.text
    assert ",stella," not in answer.text


def test_the_audit_log_cannot_be_changed_in_the_site(story: None, cast: Cast) -> None:
    for method in ("post", "put", "patch", "delete"):
        assert getattr(cast.admin, method)("/audit/").status_code == 405
    assert AuditEntry.objects.count() == 4
