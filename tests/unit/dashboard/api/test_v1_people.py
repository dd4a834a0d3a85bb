"""Users and the audit log over the API."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from dashboard.audit.record import record_entry
from dashboard.models import ApiToken, AuditEntry, Role
from tests.support.people import Lab, make_lab
from tests.support.programs import Program, person, token_of

pytestmark = pytest.mark.django_db
PEOPLE, AUDIT = "/v1/people/", "/v1/audit/"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def admin(lab: Lab) -> Program:
    return Program(token_of(get_user_model().objects.create_superuser("ada")))


def test_a_user_is_added_without_a_password_and_deactivated(lab: Lab, admin: Program) -> None:
    made = admin.post(PEOPLE, {"name": "nina"})
    assert made.status_code == 201
    nina = person("nina")
    assert not nina.has_usable_password()
    changed = admin.send("PATCH", f"{PEOPLE}{nina.pk}/", {"do": "deactivate"})
    assert changed.json()["can_sign_in"] is False
    (row,) = admin.get(f"{PEOPLE}?q=NIN").json()["people"]
    assert row == changed.json()
    rows = {row["name"]: row for row in admin.get(PEOPLE).json()["people"]}
    assert rows["mia-lab"]["roles"] == ["lab: Viewer"]
    assert rows["ada"]["administrator"] is True
    kept = AuditEntry.objects.order_by("pk").values_list("action", "target", "after", "via")
    assert list(kept) == [
        ("add_person", "nina", None, "api"),
        ("change_person", "nina", {"is_active": False}, "api"),
    ]


def test_removing_your_own_access_is_rejected_and_audited(lab: Lab, admin: Program) -> None:
    ada = person("ada")
    for do in ("deactivate", "make_member"):
        refused = admin.send("PATCH", f"{PEOPLE}{ada.pk}/", {"do": do})
        assert refused.status_code == 409
        assert "remove your own access" in refused.json()["error"]["message"]
    ada.refresh_from_db()
    assert (ada.is_active, ada.is_superuser) == (True, True)
    assert set(AuditEntry.objects.values_list("action", "result")) == {("change_person", "refused")}


def test_invalid_fields_are_named(lab: Lab, admin: Program) -> None:
    mia = f"{PEOPLE}{lab.member.user.pk}/"
    for body in ({}, {"name": ""}, {"name": "MIA-lab"}, {"name": "a b"}, {"name": ["x"]}, {"name": "x" * 200}):
        assert set(admin.post(PEOPLE, body).json()["error"]["fields"]) == {"name"}, body
    assert set(admin.post(PEOPLE, {"username": "x"}).json()["error"]["fields"]) == {"username"}
    changes: tuple[dict[str, Any], ...] = ({}, {"do": "delete"}, {"do": ["activate"]}, {"do": None})
    for change in changes:
        assert set(admin.send("PATCH", mia, change).json()["error"]["fields"]) == {"do"}
    for url, field in ((f"{PEOPLE}?page=x", "page"), (f"{PEOPLE}?x=1", "x"), (f"{AUDIT}?since=soon", "since")):
        assert set(admin.get(url).json()["error"]["fields"]) == {field}
    assert set(admin.get(f"{AUDIT}?result=perhaps&until=x").json()["error"]["fields"]) == {"result", "until"}


def test_operators_see_audit_entries_of_their_accounts_only(lab: Lab, admin: Program) -> None:
    other = make_lab("other")
    for found in (lab.account, other.account):
        record_entry("register_model", actor="sam", account_id=found.pk, account_name=found.name, target=found.name)
    record_entry("sign_in", actor="ada")
    otto = person("otto", lab.account, Role.OPERATOR)
    person("otto", other.account, Role.OPERATOR)
    vera = person("vera", lab.account, Role.SCIENTIST)

    def seen(program: Program, query: str = "") -> list[str]:
        return sorted(entry["account_name"] for entry in program.get(f"{AUDIT}{query}").json()["entries"])

    assert seen(admin) == ["", "lab", "other"]
    assert seen(Program(token_of(otto, ApiToken.Scope.READ))) == ["lab", "other"]
    assert seen(Program(token_of(otto, account=lab.account))) == ["lab"]
    assert seen(Program(token_of(person("ada"), account=lab.account))) == ["lab"]
    assert seen(admin, "?action=register_model&account=other") == ["other"]
    assert Program(token_of(vera)).get(AUDIT).status_code == 403
    third = make_lab("third")
    assert Program(token_of(otto, account=third.account)).get(AUDIT).status_code == 403


def test_the_audit_log_can_be_filtered_by_the_first_and_last_possible_day(lab: Lab, admin: Program) -> None:
    record_entry("sign_in", actor="ada")
    assert admin.get(f"{AUDIT}?since=0001-01-01&until=9999-12-31").json()["found"] == 1
    assert admin.get(f"{AUDIT}?since=9999-12-31").json()["found"] == 0
    assert admin.get(f"{AUDIT}?until=0001-01-01").json()["found"] == 0


def test_the_audit_log_is_paginated(lab: Lab, admin: Program) -> None:
    for number in range(120):
        record_entry("register_model", actor="sam", target=str(number))
    path, seen = f"{AUDIT}?actor=sam", []
    while path:
        page = admin.get(path).json()
        seen += [entry["target"] for entry in page["entries"]]
        path = page["next"]
    assert seen == [str(number) for number in reversed(range(120))]
