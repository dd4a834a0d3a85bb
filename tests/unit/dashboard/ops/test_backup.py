"""Contents and order of a backup while files are added and deleted."""

import fcntl
import io
import json
import sqlite3
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from dashboard.ops.backup import create, restore, restore_database
from dashboard.ops.backup.archive import DamagedArchiveError, Reader, Writer
from dashboard.ops.backup.create import BackupError
from dashboard.ops.backup.restore_database import RestoreError
from mms.system.locks import locked


@pytest.fixture
def mms(settings: Settings, tmp_path: Path) -> Path:
    mms = settings.MMS_DIR = tmp_path / "mms"
    settings.FILES_DIR = tmp_path / "files"
    for folder in ("oci/blobs/sha256", "known", "layers/x", "rootfs/x", "routes", "cache", "builds", "services/one"):
        (mms / folder).mkdir(parents=True)
    settings.FILES_DIR.mkdir()
    return mms


def blob(mms: Path, content: bytes) -> Path:
    path = mms / "oci/blobs/sha256" / sha256(content).hexdigest()
    path.write_bytes(content)
    return path


def part_of(label: str) -> create.Part:
    return next(part for part in create.backup_parts() if part.label == label)


def test_an_index_is_read_before_its_blobs(mms: Path) -> None:
    (mms / "oci/index.json").write_text("{}")
    blob(mms, b"old")
    files = create._files(part_of("images"))
    assert next(files).name == "index.json"
    late = blob(mms, b"named by a later index")
    assert late in list(files), "every blob in the index is included, whenever it was written"


def test_a_file_deleted_during_the_backup_is_left_out_and_counted(mms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, pruned = blob(mms, b"kept"), blob(mms, b"pruned")
    target = io.BytesIO()
    writer = Writer(target)
    listed = list(create._files(part_of("images")))
    pruned.unlink()
    monkeypatch.setattr(create, "_files", lambda part: iter(listed))
    summary = create._add_part(writer, part_of("images"))
    assert (summary.count, summary.missing) == (1, 1)
    writer.add_bytes("end", b"")
    writer.finish()
    target.seek(0)
    Reader(target).unpack(mms.parent / "out")
    assert (mms.parent / "out/mms/oci/blobs/sha256" / kept.name).read_bytes() == b"kept"


def test_a_file_that_does_not_match_its_digest_is_counted_as_damaged(mms: Path) -> None:
    blob(mms, b"good")
    blob(mms, b"bad").write_bytes(b"rotten")
    summary = create._add_part(Writer(io.BytesIO()), part_of("images"))
    assert (summary.count, summary.damaged) == (2, 1)


def test_files_that_can_be_recreated_are_left_out(mms: Path, settings: Settings) -> None:
    for name in ("layers/x/a", "rootfs/x/a", "routes/a.json", "cache/a", "store.lock", "oci/blobs/sha256/.new-a"):
        (mms / name).write_text("x")
    for name in ("builds/a.log", "services/one/1.log", "services/one/1.log.1"):
        (mms / name).write_text("x")
    (mms / "builds/link.log").symlink_to("/etc/passwd")
    names = {path.relative_to(mms).as_posix() for part in create.backup_parts() for path in create._files(part)}
    assert names == {"builds/a.log", "services/one/1.log", "services/one/1.log.1"}


def test_a_second_backup_at_the_same_time_is_refused(settings: Settings) -> None:
    with locked(settings.RUN_DIR / "backup.lock"), pytest.raises(BackupError, match="is already running"):
        create.create_backup(io.BytesIO(), lambda summary: None, with_database=False)


def test_a_file_gets_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    with suppress(RuntimeError), create.atomic_output_file(path, force=False) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with create.atomic_output_file(path, force=False) as file:
        file.write(b"whole")
        assert not path.exists()
        with pytest.raises(BackupError, match="Another backup"), create.atomic_output_file(path, force=False):
            pass
    assert path.read_bytes() == b"whole"


def test_a_backup_that_finished_first_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, true = tmp_path / "backup.tar", fcntl.flock

    def too_late(descriptor: int, kind: int) -> None:
        """Let another backup rename its file after we open it and before we lock it."""
        path.with_name("backup.tar.partial").write_bytes(b"whole")
        path.with_name("backup.tar.partial").rename(path)
        true(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(BackupError, match="Another backup"), create.atomic_output_file(path, force=True):
        pass
    assert path.read_bytes() == b"whole"


def test_a_file_created_during_the_backup_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, true = tmp_path / "backup.tar", fcntl.flock

    def meanwhile(descriptor: int, kind: int) -> None:
        path.write_bytes(b"whole")
        true(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(BackupError, match="already exists"), create.atomic_output_file(path, force=False):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["backup.tar"]
    assert path.read_bytes() == b"whole"


# --- refused backups --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"files_only": True}])
def test_an_unfinished_restore_is_not_backed_up(settings: Settings, tmp_path: Path, more: dict[str, bool]) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "restore_unfinished").write_text("manage.py restore my.tar")
    with pytest.raises(CommandError, match=r"isn't finished.*restore my\.tar"):
        call_command("backup", str(tmp_path / "backup.tar"), **more)
    assert not (tmp_path / "backup.tar").exists()


def test_another_database_than_that_of_the_site_is_not_backed_up(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "database").write_text("PostgreSQL db.example:5432/models\n")
    with pytest.raises(CommandError, match=r"db\.example:5432/models.*DATABASE_URL"):
        call_command("backup", str(tmp_path / "backup.tar"))
    call_command("backup", str(tmp_path / "backup.tar"), files_only=True)  # does not read the database


@pytest.mark.django_db(transaction=True)
def test_an_unreadable_sqlite_database_is_reported_in_a_sentence(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    path = tmp_path / "db.sqlite3"
    with restore_database._connected_to(path):
        with pytest.raises(BackupError, match="There is nothing to back up"):
            create.create_backup(io.BytesIO(), lambda summary: None)
        assert not path.exists()
        odd = sqlite3.connect(path, isolation_level=None)
        odd.executescript("CREATE TABLE django_migrations (app, name); INSERT INTO django_migrations VALUES ('a', 'b')")
        odd.execute("PRAGMA writable_schema = ON")
        odd.execute("INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING missing')")
        odd.close()
        with pytest.raises(BackupError, match="Couldn't read the database: no such module: missing"):
            create.create_backup(io.BytesIO(), lambda summary: None)


# --- refused restores -------------------------------------------------------------------------------------------------

DATABASE = {"vendor": "sqlite", "migrations": [["mms", "0001_initial"]], "tables": []}
ABOUT: dict[str, Any] = {"version": "1", "made_at": "2030-01-31T12:00:00+00:00", "database": DATABASE}
TABLE = {"name": "mms_token", "rows": 1, "columns": ["id"]}


def archive(about: Any = ABOUT, key: bytes = b"key", urls: bytes = b"") -> io.BytesIO:
    target = io.BytesIO()
    writer = Writer(target)
    small = {create.ABOUT: json.dumps(about).encode(), create.KEY: key, create.FALLBACKS: b"", create.URLS: urls}
    for name, content in small.items():
        writer.add_bytes(name, content)
    writer.finish()
    target.seek(0)
    return target


INVALID_DATABASES: list[Any] = [{}, [], 1, "sqlite"]
INVALID = [
    [],
    {"version": "1", "made_at": "2030-01-31T12:00:00+00:00"},
    ABOUT | {"version": 1},
    ABOUT | {"made_at": 1},
    ABOUT | {"made_at": "2030-01-31T12:00:00"},
    *(ABOUT | {"database": value} for value in INVALID_DATABASES),
    *(ABOUT | {"database": {key: DATABASE[key] for key in DATABASE if key != missing}} for missing in DATABASE),
    ABOUT | {"database": DATABASE | {"vendor": []}},
    ABOUT | {"database": DATABASE | {"migrations": [["mms"]]}},
    ABOUT | {"database": DATABASE | {"migrations": [["mms", 1]]}},
    ABOUT | {"database": DATABASE | {"tables": {"mms_token": 1}}},
    *(ABOUT | {"database": DATABASE | {"tables": [TABLE | {key: None}]}} for key in TABLE),
    ABOUT | {"database": DATABASE | {"tables": [TABLE | {"rows": float("inf")}]}},
]


@pytest.mark.parametrize("about", INVALID, ids=json.dumps)
def test_an_archive_with_invalid_metadata_is_damaged(about: Any) -> None:
    with pytest.raises(DamagedArchiveError, match=r"about\.json can't be read"):
        restore.restore(archive(about), "backup.tar", replace=True)


@pytest.mark.parametrize("part", ["key", "urls"])
def test_an_archive_with_binary_keys_or_urls_is_damaged(part: str) -> None:
    with pytest.raises(DamagedArchiveError, match="isn't text"):
        restore.restore(archive(**{part: b"\xff"}), "backup.tar", replace=True)


def test_a_restore_during_a_backup_or_prune_is_refused() -> None:
    with create.backup_lock(), pytest.raises(BackupError, match="is already running"):
        restore.restore(archive(), "backup.tar", replace=True)


def test_a_failed_restore_keeps_the_mark_of_an_earlier_killed_one(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    mark = tmp_path / "restore_unfinished"

    def fail() -> None:
        with suppress(RestoreError), restore._marked("second.tar"):
            assert "second.tar" in mark.read_text()
            raise RestoreError

    fail()
    assert not mark.exists()
    mark.write_text("manage.py restore first.tar\n")
    fail()
    assert mark.read_text() == "manage.py restore first.tar\n"


def test_a_destination_with_only_lock_files_counts_as_empty(mms: Path, settings: Settings) -> None:
    info = restore.BackupInfo("1", timezone.now(), None)
    (mms / "oci").rename(mms / "elsewhere")
    (settings.FILES_DIR / ".lock").touch()
    (settings.FILES_DIR / "ab").mkdir()
    restore._check_destination(info, replace=False)
    (settings.FILES_DIR / "ab" / "abc").touch()
    with pytest.raises(RestoreError, match="uploads"):
        restore._check_destination(info, replace=False)
