"""What goes into a backup, in which order, while files come and go."""

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
from pytest_django import Settings

from dashboard.ops.backup import create as backup
from dashboard.ops.backup import restore, restore_database
from dashboard.ops.backup.archive import Damaged, Reader, Writer


@pytest.fixture
def mms(settings: Settings, tmp_path: Path) -> Path:
    settings.MMS_DIR, settings.FILES_DIR = tmp_path / "mms", tmp_path / "files"
    for folder in ("oci/blobs/sha256", "known", "layers/x", "rootfs/x", "routes", "cache", "builds", "services/one"):
        (settings.MMS_DIR / folder).mkdir(parents=True)
    settings.FILES_DIR.mkdir()
    return settings.MMS_DIR


def blob(mms: Path, content: bytes) -> Path:
    path = mms / "oci/blobs/sha256" / sha256(content).hexdigest()
    path.write_bytes(content)
    return path


def part_of(what: str) -> backup.Part:
    return next(part for part in backup.parts() if part.what == what)


def test_an_index_is_read_before_the_blobs_it_names(mms: Path) -> None:
    (mms / "oci/index.json").write_text("{}")
    blob(mms, b"old")
    files = backup._files(part_of("images"))
    assert next(files).name == "index.json"
    late = blob(mms, b"named by a later index")
    assert late in list(files), "so what an index names is there, whenever it was written"


def test_a_file_that_is_deleted_meanwhile_is_left_out_and_counted(mms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, pruned = blob(mms, b"kept"), blob(mms, b"pruned")
    target = io.BytesIO()
    writer = Writer(target)
    listed = list(backup._files(part_of("images")))
    pruned.unlink()
    monkeypatch.setattr(backup, "_files", lambda part: iter(listed))
    held = backup._add_part(writer, part_of("images"))
    assert (held.count, held.gone) == (1, 1)
    writer.add_bytes("end", b"")
    writer.finish()
    target.seek(0)
    Reader(target).unpack(mms.parent / "out")
    assert (mms.parent / "out/mms/oci/blobs/sha256" / kept.name).read_bytes() == b"kept"


def test_a_file_that_is_not_what_its_name_says_is_told(mms: Path) -> None:
    blob(mms, b"good")
    blob(mms, b"bad").write_bytes(b"rotten")
    held = backup._add_part(Writer(io.BytesIO()), part_of("images"))
    assert (held.count, held.damaged) == (2, 1)


def test_what_can_be_made_again_is_left_out(mms: Path, settings: Settings) -> None:
    for name in ("layers/x/a", "rootfs/x/a", "routes/a.json", "cache/a", "store.lock", "oci/blobs/sha256/.new-a"):
        (mms / name).write_text("x")
    for name in ("builds/a.log", "services/one/1.log", "services/one/1.log.1"):
        (mms / name).write_text("x")
    (mms / "builds/link.log").symlink_to("/etc/passwd")
    names = {path.relative_to(mms).as_posix() for part in backup.parts() for path in backup._files(part)}
    assert names == {"builds/a.log", "services/one/1.log", "services/one/1.log.1"}


def test_two_backups_at_once_are_refused(settings: Settings) -> None:
    with backup.locked(settings.RUN_DIR / "backup.lock"), pytest.raises(backup.Failed, match="is already running"):
        backup.back_up(io.BytesIO(), lambda held: None, with_database=False)


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    with suppress(RuntimeError), backup.whole_file(path, force=False) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with backup.whole_file(path, force=False) as file:
        file.write(b"whole")
        assert not path.exists()
        with pytest.raises(backup.Failed, match="Another backup"), backup.whole_file(path, force=False):
            pass
    assert path.read_bytes() == b"whole"


def test_a_backup_that_was_finished_in_between_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, true = tmp_path / "backup.tar", fcntl.flock

    def too_late(descriptor: int, kind: int) -> None:
        """The other one gives its file the name between our opening and our locking it."""
        path.with_name("backup.tar.partial").write_bytes(b"whole")
        path.with_name("backup.tar.partial").rename(path)
        true(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(backup.Failed, match="Another backup"), backup.whole_file(path, force=True):
        pass
    assert path.read_bytes() == b"whole"


def test_a_name_that_was_taken_in_between_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, true = tmp_path / "backup.tar", fcntl.flock

    def meanwhile(descriptor: int, kind: int) -> None:
        path.write_bytes(b"whole")
        true(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(backup.Failed, match="already exists"), backup.whole_file(path, force=False):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["backup.tar"]
    assert path.read_bytes() == b"whole"


# --- what cannot be backed up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"files_only": True}])
def test_half_a_restore_is_not_backed_up(settings: Settings, tmp_path: Path, more: dict[str, bool]) -> None:
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
    call_command("backup", str(tmp_path / "backup.tar"), files_only=True)  # this one asks no database


@pytest.mark.django_db(transaction=True)
def test_a_database_that_sqlite_cannot_read_is_told_in_a_sentence(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    path = tmp_path / "db.sqlite3"
    with restore_database._connected_to(path):
        with pytest.raises(backup.Failed, match="There is nothing to back up"):
            backup.back_up(io.BytesIO(), lambda held: None)
        assert not path.exists()
        odd = sqlite3.connect(path, isolation_level=None)
        odd.executescript("CREATE TABLE django_migrations (app, name); INSERT INTO django_migrations VALUES ('a', 'b')")
        odd.execute("PRAGMA writable_schema = ON")
        odd.execute("INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING missing')")
        odd.close()
        with pytest.raises(backup.Failed, match="Couldn't read the database: no such module: missing"):
            backup.back_up(io.BytesIO(), lambda held: None)


# --- what cannot be put in place --------------------------------------------------------------------------------------

CONTENT = {"vendor": "sqlite", "migrations": [["mms", "0001_initial"]], "tables": []}
ABOUT: dict[str, Any] = {"version": "1", "made_at": "2030-01-31T12:00:00+00:00", "database": CONTENT}
TABLE = {"name": "mms_token", "rows": 1, "columns": ["id"]}


def archive(about: Any = ABOUT, key: bytes = b"key", urls: bytes = b"") -> io.BytesIO:
    target = io.BytesIO()
    writer = Writer(target)
    small = {backup.ABOUT: json.dumps(about).encode(), backup.KEY: key, backup.FALLBACKS: b"", backup.URLS: urls}
    for name, content in small.items():
        writer.add_bytes(name, content)
    writer.finish()
    target.seek(0)
    return target


STRANGE = [
    [],
    {"version": "1", "made_at": "2030-01-31T12:00:00+00:00"},
    ABOUT | {"version": 1},
    ABOUT | {"made_at": 1},
    ABOUT | {"made_at": "2030-01-31T12:00:00"},
    *(ABOUT | {"database": found} for found in ({}, [], 1, "sqlite")),
    *(ABOUT | {"database": {key: CONTENT[key] for key in CONTENT if key != gone}} for gone in CONTENT),
    ABOUT | {"database": CONTENT | {"vendor": []}},
    ABOUT | {"database": CONTENT | {"migrations": [["mms"]]}},
    ABOUT | {"database": CONTENT | {"migrations": [["mms", 1]]}},
    ABOUT | {"database": CONTENT | {"tables": {"mms_token": 1}}},
    *(ABOUT | {"database": CONTENT | {"tables": [TABLE | {key: None}]}} for key in TABLE),
    ABOUT | {"database": CONTENT | {"tables": [TABLE | {"rows": float("inf")}]}},
]


@pytest.mark.parametrize("about", STRANGE, ids=json.dumps)
def test_what_says_strange_things_of_itself_is_damaged(about: Any) -> None:
    with pytest.raises(Damaged, match=r"about\.json can't be read"):
        restore.restore(archive(about), "backup.tar", replace=True)


@pytest.mark.parametrize("part", ["key", "urls"])
def test_keys_and_addresses_that_are_no_text_are_damaged(part: str) -> None:
    with pytest.raises(Damaged, match="isn't text"):
        restore.restore(archive(**{part: b"\xff"}), "backup.tar", replace=True)


def test_nothing_is_put_in_place_while_files_are_read_or_pruned() -> None:
    with backup.files_stay(), pytest.raises(backup.Failed, match="is already running"):
        restore.restore(archive(), "backup.tar", replace=True)


def test_a_restore_that_fails_leaves_the_mark_of_an_earlier_one_that_was_killed(
    settings: Settings, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    mark = tmp_path / "restore_unfinished"

    def fail() -> None:
        with suppress(backup.Failed), restore._marked("second.tar"):
            assert "second.tar" in mark.read_text()
            raise backup.Failed

    fail()
    assert not mark.exists()
    mark.write_text("manage.py restore first.tar\n")
    fail()
    assert mark.read_text() == "manage.py restore first.tar\n"


def test_a_place_without_uploads_is_free_whatever_locks_lie_there(mms: Path, settings: Settings) -> None:
    about = restore.About("1", restore.timezone.now(), None)
    (mms / "oci").rename(mms / "elsewhere")
    (settings.FILES_DIR / ".lock").touch()
    (settings.FILES_DIR / "ab").mkdir()
    restore._check_place(about, replace=False)
    (settings.FILES_DIR / "ab" / "abc").touch()
    with pytest.raises(backup.Failed, match="uploads"):
        restore._check_place(about, replace=False)
