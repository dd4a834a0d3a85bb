"""Start-up steps, which do nothing at the second start."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from dashboard.ops.startup import bundled_account, data_dir, prepare
from deployments.models import Cluster, HostingAccount, RegistryInfo
from mms.models import Token
from mms.system.locks import locked

pytestmark = pytest.mark.django_db


def test_a_missing_migration_is_detected() -> None:
    assert prepare.is_migrated()
    MigrationRecorder(connection).record_unapplied("mms", "0001_initial")
    assert not prepare.is_migrated()


def test_static_files_are_collected_again_only_when_one_changed(settings: Settings, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "page.css").write_text("one")
    settings.STATICFILES_DIRS = [source]
    settings.STATIC_ROOT = tmp_path / "collected"
    prepare.collect_static()
    (settings.STATIC_ROOT / "mark").touch()
    prepare.collect_static()
    assert (settings.STATIC_ROOT / "mark").exists()
    (source / "page.css").write_text("two, and longer")
    prepare.collect_static()
    assert not (settings.STATIC_ROOT / "mark").exists()
    assert (settings.STATIC_ROOT / "page.css").read_text() == "two, and longer"


def test_only_a_program_that_serves_pages_collects_static_files(monkeypatch: pytest.MonkeyPatch) -> None:
    collected = []
    monkeypatch.setattr(prepare, "collect_static", lambda: collected.append(True))
    prepare.prepare(serves_pages=False)
    assert not collected
    prepare.prepare()
    assert collected


def test_leftovers_of_killed_processes_are_deleted(settings: Settings, tmp_path: Path) -> None:
    settings.TMP_DIR = tmp_path
    (tmp_path / "upload-1").write_text("half a file")
    (tmp_path / "build" / "layer").mkdir(parents=True)
    prepare.clear_temporary_files()
    assert list(tmp_path.iterdir()) == []


def test_the_snapshot_of_a_running_backup_is_kept(settings: Settings, tmp_path: Path) -> None:
    settings.TMP_DIR = tmp_path
    for name in ("backup-1.sqlite3", "upload-1"):
        (tmp_path / name).touch()
    with locked(settings.RUN_DIR / "backup.lock"):
        prepare.clear_temporary_files()
    assert [path.name for path in tmp_path.iterdir()] == ["backup-1.sqlite3"]
    prepare.clear_temporary_files()
    assert list(tmp_path.iterdir()) == []


def test_a_start_records_its_database_and_later_ones_refuse_others(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_DIR, settings.FILES_URLS_PATH = tmp_path, tmp_path / "files_urls"
    data_dir.require_recorded_database()  # nothing is recorded yet
    prepare.prepare(serves_pages=False)
    assert (tmp_path / "database").stat().st_mode & 0o777 == 0o600
    data_dir.require_recorded_database()
    about = {"HOST": "db.example", "PORT": "", "NAME": "models", "USER": "ann", "PASSWORD": "hidden"}
    for name, value in about.items():
        monkeypatch.setitem(connection.settings_dict, name, value)
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    with pytest.raises(ImproperlyConfigured, match=r"uses SQLite .* would use PostgreSQL db.example:5432/models"):
        data_dir.require_recorded_database()
    data_dir.record_database()
    assert (tmp_path / "database").read_text() == "PostgreSQL db.example:5432/models\n"


def test_a_database_in_the_data_directory_is_described_relative_to_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path / "here", tmp_path / "there"):
        settings.DATA_DIR = place
        monkeypatch.setitem(connection.settings_dict, "NAME", str(place / "db.sqlite3"))
        assert data_dir.describe_database() == "SQLite db.sqlite3"


def test_the_account_local_is_complete() -> None:
    bundled_account.ensure()
    account = HostingAccount.objects.get()
    assert {account.name, account.subscription, account.resource_group, account.hosting_account} == {"local"}
    assert RegistryInfo.objects.get(account=account).location == "oci://local"
    assert "process://local" in Cluster.objects.get(account=account).kube_config
    assert Cluster.objects.get().pull_secret == "local"


def test_the_account_local_follows_the_address_and_keeps_its_token(settings: Settings) -> None:
    bundled_account.ensure()
    token = HostingAccount.objects.get().token
    settings.MMS_URL = "http://127.0.0.1:9999"
    bundled_account.ensure()
    account = HostingAccount.objects.get()
    assert account.base_url == "http://127.0.0.1:9999"
    assert account.token == token
    assert Token.objects.count() == 1


def test_a_token_unknown_to_the_mms_is_replaced() -> None:
    bundled_account.ensure()
    lost = HostingAccount.objects.get().token
    Token.objects.all().delete()
    bundled_account.ensure()
    assert HostingAccount.objects.get().token != lost
    assert Token.objects.count() == 1


def test_changes_to_the_registry_are_kept() -> None:
    bundled_account.ensure()
    RegistryInfo.objects.update(location="https://registry.example")
    bundled_account.ensure()
    assert RegistryInfo.objects.get().location == "https://registry.example"
