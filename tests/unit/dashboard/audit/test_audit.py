"""The audit log: an entry for every change, written in its transaction, and append-only."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.access.permissions import Permission, required_level, required_role
from dashboard.audit.record import prune_entries, record_entry
from dashboard.models import AuditEntry
from deployments.models import Asset, Operation
from deployments.models.operation import State
from deployments.operations import submit
from tests.support.audit_log import protected_audit_log
from tests.support.people import Cast, Lab, make_cast, make_lab, make_operation
from tests.support.workshop import make_image

pytestmark = pytest.mark.django_db(transaction=True)
MODEL = {"name": "fresh", "url": "https://files.example/m.bin?sig=not-to-be-seen"}


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def entries() -> list[tuple[str, str, str]]:
    return [(entry.actor, entry.action, entry.result) for entry in AuditEntry.objects.order_by("pk")]


def test_an_entry_has_actor_action_target_and_address(lab: Lab, cast: Cast) -> None:
    cast.scientist.post(f"{lab.url}models/new/", MODEL, REMOTE_ADDR="203.0.113.7")
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.result, entry.via) == ("sam", "register_model", "done", "page")
    assert (entry.account_id, entry.account_name) == (lab.account.pk, "lab")
    assert (entry.target, entry.address) == ("fresh", "203.0.113.7")
    assert entry.after
    assert entry.after["name"] == "fresh"
    assert entry.after["operation"] == str(Operation.objects.get(model__name="fresh").pk)
    assert "not-to-be-seen" not in str(entry.after)


def test_an_update_records_the_values_before(lab: Lab, cast: Cast) -> None:
    newer = make_image(lab.manifest)
    cast.scientist.post(f"{lab.url}services/{lab.service.pk}/update/", {"image": newer.pk})
    entry = AuditEntry.objects.get()
    assert entry.action == "update_service"
    assert entry.before == {"image": lab.image.pk, "cluster": lab.service.cluster_id}


def test_a_denied_request_is_recorded_as_refused(lab: Lab, cast: Cast) -> None:
    cast.viewer.post(f"{lab.url}models/new/", MODEL)
    cast.scientist.post(f"{lab.url}services/{lab.service.pk}/delete/")
    done = make_operation(lab.model, state=State.SUCCEEDED)
    cast.scientist.post(f"{lab.url}operations/{done.pk}/retry/")
    assert entries() == [
        ("vera", "register_model", "refused"),
        ("sam", "delete_service", "refused"),
        ("sam", "retry_operation", "refused"),
    ]


def test_viewing_a_scoring_key_is_recorded_and_viewing_pages_is_not(lab: Lab, cast: Cast) -> None:
    cast.scientist.get(lab.url)
    cast.scientist.post(f"{lab.url}refresh/")
    cast.scientist.post(f"{lab.url}models/new/", {"name": "not a name"})
    cast.scientist.post(f"{lab.url}models/new/", MODEL | {"do": "preview"})
    assert entries() == []
    cast.scientist.post(f"{lab.url}services/{lab.service.pk}/key/")
    assert entries() == [("sam", "show_key", "done")]


def test_a_preview_opens_no_transaction(lab: Lab, cast: Cast) -> None:
    def begun(fields: dict[str, str], path: str = "models/new/") -> int:
        with CaptureQueriesContext(connection) as queries:
            cast.scientist.post(f"{lab.url}{path}", fields)
        return sum(query["sql"].startswith("BEGIN") for query in queries)

    assert begun(MODEL | {"do": "preview"}) == 0
    assert begun({"name": "file", "url": "https://files.example/a.py", "do": "preview"}, "assets/new/") == 0
    assert begun(MODEL) > 0


def test_requests_to_an_invisible_account_are_not_recorded(lab: Lab, cast: Cast) -> None:
    cast.stranger.post(f"{lab.url}models/new/", MODEL)
    cast.anonymous.post(f"{lab.url}models/new/", MODEL)
    assert entries() == []


def test_nothing_changes_if_the_entry_cannot_be_written(lab: Lab, cast: Cast) -> None:
    cast.scientist.raise_request_exception = False
    before = Operation.objects.count()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON dashboard_auditentry BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    try:
        assert cast.scientist.post(f"{lab.url}models/new/", MODEL).status_code == 500
        asset = {"name": "file", "url": "https://files.example/a.py"}
        assert cast.scientist.post(f"{lab.url}assets/new/", asset).status_code == 500
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER full")
    assert Operation.objects.count() == before
    assert not Asset.objects.filter(name="file").exists()


def test_an_internal_error_is_recorded_as_failed(lab: Lab, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(submit, "delete_service", broken)
    cast.operator.raise_request_exception = False
    assert cast.operator.post(f"{lab.url}services/{lab.service.pk}/delete/").status_code == 500
    assert entries() == [("otto", "delete_service", "failed")]


def test_entries_cannot_be_changed_or_deleted(db: None) -> None:
    record_entry("sign_in", actor="ann")
    entry = AuditEntry.objects.get()
    entry.actor = "bob"
    for attempt in (
        entry.save,
        entry.delete,
        AuditEntry.objects.all().delete,
        lambda: AuditEntry.objects.update(actor=""),
    ):
        with pytest.raises(NotImplementedError):
            attempt()
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE dashboard_auditentry SET actor = 'bob'")
    assert AuditEntry.objects.get().actor == "ann"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM dashboard_auditentry",
        "DELETE FROM dashboard_auditentry WHERE at < '9999-01-01'",
        "UPDATE dashboard_auditentry SET actor = 'bob'",
        "UPDATE OR REPLACE dashboard_auditentry SET id = id",
        "INSERT OR REPLACE INTO dashboard_auditentry SELECT * FROM dashboard_auditentry",
        "REPLACE INTO dashboard_auditentry SELECT * FROM dashboard_auditentry",
        "INSERT INTO dashboard_auditentry SELECT * FROM dashboard_auditentry WHERE 1 ON CONFLICT DO UPDATE SET actor=1",
    ],
)
def test_the_database_rejects_changes_of_entries(statement: str) -> None:
    record_entry("sign_in", actor="ann")
    with protected_audit_log():
        with pytest.raises(DatabaseError, match=r"(?i)audit entr"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
        record_entry("sign_in", actor="eve")
    assert entries() == [("ann", "sign_in", "done"), ("eve", "sign_in", "done")]


def test_pruning_deletes_old_entries_and_the_others_stay_protected() -> None:
    AuditEntry.objects.create(actor="old", action="x", result="done", at=timezone.now() - timedelta(days=10**4))
    record_entry("sign_in", actor="new")
    with protected_audit_log():
        assert prune_entries() == 1
        with (
            pytest.raises(DatabaseError, match="can't be deleted"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("DELETE FROM dashboard_auditentry")
    assert entries() == [("new", "sign_in", "done")]


def test_long_and_unprintable_texts_can_be_recorded(db: None) -> None:
    record_entry(
        "x" * 500, actor="é" * 500, target="line\nline\x00\u202e" * 100, after={"pip": "y" * 100_000, "n": [1, None]}
    )
    entry = AuditEntry.objects.get()
    assert "\n" not in entry.target
    assert "\u202e" not in entry.target
    assert entry.after
    assert len(entry.after["pip"]) < 600
    assert entry.after["n"] == [1, None]


def test_templates_use_existing_permissions() -> None:
    asked = {
        name
        for path in (Path(settings.BASE_DIR) / "templates").rglob("*.html")
        for name in re.findall(r"\bmay\.(\w+)", path.read_text())
    }
    assert len(asked) > 8
    assert asked <= set(Permission.values)


def test_every_role_has_permissions_of_its_own() -> None:
    assert {required_level(permission) for permission in Permission} == {1, 2, 3, 4}
    assert required_role(Permission.CREATE_IMAGE) == "Data scientist"
    assert required_role(Permission.CHANGE_PEOPLE) == "Administrator"


def test_do_preview_does_not_hide_changes_of_other_views(lab: Lab, cast: Cast) -> None:
    preview = {"do": "preview"}
    cast.operator.post(f"{lab.url}members/{lab.member.pk}/", {"role": "scientist", **preview})
    cast.operator.post(f"{lab.url}services/{lab.service.pk}/key/", preview)
    cast.operator.post(f"{lab.url}services/{lab.service.pk}/delete/", preview)
    cast.operator.post(f"{lab.url}assets/new/", {"name": "file", "url": "https://files.example/a.py", **preview})
    assert [action for _, action, _ in entries()] == ["change_member", "show_key", "delete_service"]
    assert not Asset.objects.filter(name="file").exists()
