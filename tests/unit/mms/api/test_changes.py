"""Versions of lists: recorded by triggers for every way of writing, expired in time, and reset by migrations."""

import uuid
from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection
from django.db.models.signals import post_migrate, pre_migrate
from django.utils import timezone

from dashboard.ops.startup import migrate, prepare
from mms import changes
from mms.api import collections
from mms.api.errors import ApiError
from mms.models import Change, Collection, Image, Manifest, Model, Revision, Service
from tests.support.mms_rows import account, image_operation

# Triggers run at commit on PostgreSQL.
pytestmark = pytest.mark.django_db(transaction=True)


def versions(account_id: int) -> dict[str, int]:
    return dict(Collection.objects.filter(account_id=account_id).values_list("noun", "version"))


def change_of(row: Model | Manifest | Image | Service) -> Change:
    return Change.objects.get(resource_id=row.pk)


def service() -> Service:
    image = image_operation().image
    assert image
    return Service.objects.create(account=image.account, name=uuid.uuid4().hex, image=image, pull_secret="none")


def test_every_way_of_writing_is_recorded() -> None:
    row = Model.objects.create(account=account(), name="m", version=1, url="http://models.example/m")
    assert versions(row.account_id) == {"models": 1}
    Model.objects.bulk_create([Model(account=row.account, name="m", version=n, url="u") for n in (2, 3)])
    assert versions(row.account_id) == {"models": 3}
    Model.objects.filter(pk=row.pk).update(description="Changed.")
    assert (versions(row.account_id), change_of(row).version) == ({"models": 4}, 4)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE mms_model SET description = 'By SQL.' WHERE version = 2")
    assert versions(row.account_id) == {"models": 5}
    kept = row.pk
    row.delete()
    removed = Change.objects.get(resource_id=kept)
    assert (removed.version, removed.removed) == (6, True)


def test_an_image_is_recorded_once_it_is_built() -> None:
    image = image_operation().image
    assert image
    assert "images" not in versions(image.account_id)
    Image.objects.filter(pk=image.pk).update(digest="sha256:1")
    assert change_of(image).removed is False


def test_a_service_changes_with_its_revisions_until_it_is_deleted() -> None:
    row = service()
    revision = Revision.objects.create(service=row, number=1, image=row.image)
    Revision.objects.filter(pk=revision.pk).update(state="active")
    assert change_of(row).version == versions(row.account_id)["services"] == 3
    Service.objects.filter(pk=row.pk).update(deleted_at=timezone.now())
    assert (change_of(row).version, change_of(row).removed) == (4, True)
    Revision.objects.filter(pk=revision.pk).update(state="stopped")
    revision.delete()
    id = row.pk
    row.delete()
    assert versions(row.account_id)["services"] == 4
    assert Change.objects.get(resource_id=id).removed is True


def test_deleting_a_listed_service_removes_it() -> None:
    row = service()
    Revision.objects.create(service=row, number=1, image=row.image)
    id = row.pk
    row.delete()
    assert Change.objects.get(resource_id=id).removed is True


def test_lists_of_accounts_are_counted_separately() -> None:
    first, second = (Model.objects.create(account=account(), name="m", version=1, url="u") for _ in range(2))
    Model.objects.create(account=second.account, name="m", version=2, url="u")
    assert [collections._version(row.account_id, "models").number for row in (first, second)] == [1, 2]


def test_old_changes_are_deleted_and_cursors_before_them_expire() -> None:
    first = Model.objects.create(account=account(), name="m", version=1, url="u")
    old = change_of(first)
    Model.objects.create(account=first.account, name="m", version=2, url="u")
    Change.objects.filter(pk=old.pk).update(changed_at=timezone.now() - timedelta(days=changes.KEEP_DAYS, hours=1))
    changes.delete_old()
    assert [change.version for change in Change.objects.filter(account_id=first.account_id)] == [2]
    version = collections._version(first.account_id, "models")
    assert collections._parse_cursor(f"{version.epoch}-1", version) == 1, "everything after it is still there"
    with pytest.raises(ApiError, match="expired"):
        collections._parse_cursor(f"{version.epoch}-0", version)


def test_a_restore_expires_all_cursors() -> None:
    row = Model.objects.create(account=account(), name="m", version=1, url="u")
    before = collections._version(row.account_id, "models")
    changes.expire_cursors()
    after = collections._version(row.account_id, "models")
    with pytest.raises(ApiError, match="expired"):
        collections._parse_cursor(str(before), after)
    assert collections._parse_cursor(str(after), after) == 1


def test_a_start_installs_triggers_that_a_killed_upgrade_lacks() -> None:
    row = Model.objects.create(account=account(), name="m", version=1, url="u")
    before = collections._version(row.account_id, "models")
    assert prepare.is_migrated()
    changes.drop_triggers(connection)
    assert not prepare.is_migrated()
    migrate.migrate()
    assert prepare.is_migrated()
    assert collections._version(row.account_id, "models").epoch != before.epoch


def test_migrations_keep_the_triggers_and_expire_cursors() -> None:
    row = Model.objects.create(account=account(), name="m", version=1, url="u")
    before = collections._version(row.account_id, "models")
    config = apps.get_app_config("mms")

    class Step:
        app_label = "mms"

    sent = {"plan": [(Step(), False)], "using": "default", "verbosity": 0, "interactive": False, "apps": apps}
    pre_migrate.send(config, app_config=config, **sent)
    Model.objects.filter(pk=row.pk).update(description="By a migration.")
    assert collections._version(row.account_id, "models") == before
    post_migrate.send(config, app_config=config, **sent)
    assert collections._version(row.account_id, "models").epoch != before.epoch
    Model.objects.filter(pk=row.pk).update(description="Afterwards.")
    assert collections._version(row.account_id, "models").number == 2
