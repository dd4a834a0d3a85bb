"""Restore of a backup: `manage.py restore`.

The backup is unpacked next to the data and its checksums are verified before anything is changed. Then it is renamed
into place, which is fast. A restore that fails before this changes nothing. One that is killed during it, or runs out
of disk space, can be run again.
"""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.utils import timezone

from dashboard.ops.backup import restore_database
from dashboard.ops.backup.archive import DamagedArchiveError, Reader
from dashboard.ops.backup.create import ABOUT, FALLBACKS, KEY, URLS, atomic_output_file, backup_lock, write_archive
from dashboard.ops.backup.database import Table
from dashboard.ops.backup.restore_database import DatabaseInfo, RestoreError
from dashboard.ops.startup.data_dir import unfinished_restore
from mms.system.locks import locked

TEMP_PREFIX = "restore-"  # name of the directory in which a backup is unpacked
SPARE_BYTES = 64 * 1024**2  # disk space that must remain free


@dataclass(frozen=True)
class RestoreResult:
    """The result of a restore."""

    version: str
    made_at: datetime
    rows: int | None  # None if the backup has no database
    uncertain: int  # operations that may have been sent since the backup
    replaced: Path | None  # the directory with the previous data


@dataclass(frozen=True)
class BackupInfo:
    """The metadata of a backup."""

    version: str
    made_at: datetime
    database: DatabaseInfo | None


@dataclass(frozen=True)
class SecretKeys:
    """The secret keys with which the data of a backup is encrypted."""

    current: str
    fallbacks: list[str]


class ReplacedDataDir:
    """The directory in DATA_DIR for the data that a restore replaces. It is created when it is first needed."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def move(self, path: Path) -> None:
        """Move `path` into the directory, unless it is missing or empty."""
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            shutil.move(path, self.create() / path.name)

    def create(self) -> Path:
        """Return the directory. It is new: another restore may have started in the same second."""
        name, number = f"replaced-{timezone.now():%Y%m%d-%H%M%S}", 1
        while self.path is None:
            path = settings.DATA_DIR / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                self.path = path
            number += 1
        return self.path


def restore(file: BinaryIO, name: str, replace: bool) -> RestoreResult:
    """Restore the backup in `file`, whose name on the command line is `name`.

    `replace` moves existing data to a directory of its own. Raises RestoreError, BackupError, DamagedArchiveError,
    OSError and DatabaseError.
    """
    with _site_stopped(), backup_lock(), _staging() as staging:
        reader = Reader(file)
        info = _parse_info(_read_text(reader, ABOUT))
        keys = SecretKeys(_read_text(reader, KEY), list(filter(None, _read_text(reader, FALLBACKS).split(","))))
        urls = _read_text(reader, URLS).splitlines()
        if info.database:
            restore_database.check_compatible(info.database)
        _check_keys(keys, name, adopts_key=_adopts_key(info))
        _check_destination(info, replace)
        _check_disk_space(file)
        reader.unpack(staging)
        return _apply(staging, info, keys, urls, name)


def _apply(staging: Path, info: BackupInfo, keys: SecretKeys, urls: list[str], name: str) -> RestoreResult:
    made_at, database, replaced = info.made_at, info.database, ReplacedDataDir()
    if database and restore_database.vendor() == "postgresql" and restore_database.has_data():
        _save_postgresql(replaced)
    if _adopts_key(info):
        settings.SECRET_KEY = keys.current
        _write(staging / KEY, keys.current)
    uncertain = restore_database.upgrade_staged_file(staging, made_at) if database else 0
    with _marked(name):
        if database:
            restore_database.replace_database(staging, database, replaced.move)
        _replace_files(staging, replaced, everything=bool(database))
        _record_urls(urls)
        uncertain += restore_database.upgrade_loaded_tables(made_at) if database else 0
    rows = sum(table.rows for table in database.tables) if database else None
    return RestoreResult(info.version, made_at, rows, uncertain, replaced.path)


# --- checks before anything is changed ------------------------------------------------------------------------------


@contextmanager
def _site_stopped() -> Iterator[None]:
    with locked(settings.RUN_DIR / "up.lock", wait=False) as is_locked:  # held by `up` while the site runs
        if not is_locked:
            raise RestoreError(f"The site is running with the data in {settings.DATA_DIR}. Stop it, then retry.")
        yield


@contextmanager
def _staging() -> Iterator[Path]:
    for leftover in settings.TMP_DIR.glob(f"{TEMP_PREFIX}*"):  # of a killed restore
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=settings.TMP_DIR))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _read_text(reader: Reader, name: str) -> str:
    try:
        return reader.read_small(name).decode()
    except UnicodeDecodeError:
        raise DamagedArchiveError(f"Its {name} isn't text.") from None


def _parse_info(text: str) -> BackupInfo:
    try:
        about = json.loads(text)
        made_at, database = datetime.fromisoformat(about["made_at"]), about["database"]
        if made_at.tzinfo is None:
            raise ValueError(made_at)
        return BackupInfo(_string(about["version"]), made_at, None if database is None else _parse_database(database))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DamagedArchiveError(f"Its {ABOUT} can't be read.") from None


def _parse_database(about: Any) -> DatabaseInfo:
    tables = [
        Table(_string(table["name"]), _number(table["rows"]), [*map(_string, table["columns"])])
        for table in about["tables"]
    ]
    migrations = {(_string(app), _string(name)) for app, name in about["migrations"]}
    return DatabaseInfo(_string(about["vendor"]), migrations, tables)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value


def _adopts_key(info: BackupInfo) -> bool:
    """Return True if the backup's key becomes the key of this site. A key in the environment takes precedence.

    A backup without a database never changes the key, because the database of this site is encrypted with it.
    """
    return bool(info.database) and not os.environ.get("SECRET_KEY")


def _check_keys(keys: SecretKeys, name: str, adopts_key: bool) -> None:
    known = {keys.current if adopts_key else settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS}
    missing = [KEY] if keys.current not in known else []
    missing += [FALLBACKS] if set(keys.fallbacks) - known else []
    if missing:
        archive = "FILE" if name == "-" else shlex.quote(name)
        values = ",".join(f"$(tar -xOf {archive} {member})" for member in missing)
        raise RestoreError(
            "The data of this backup is encrypted with a secret key that this site doesn't have. Set this variable for "
            "the restore and for every later start:\n"
            f'  export SECRET_KEY_FALLBACKS="{values},$SECRET_KEY_FALLBACKS"'
        )


def _check_destination(info: BackupInfo, replace: bool) -> None:
    """Raise RestoreError if there is data and `replace` is False, or if the database is in use."""
    has_database = bool(info.database)
    existing = ["a database"] if has_database and restore_database.has_data() else []
    existing += ["uploads"] if any(settings.FILES_DIR.glob("??/*")) else []
    existing += ["images"] if Path(settings.MMS_DIR, "oci").exists() else []
    if existing and not replace and not unfinished_restore().exists():
        raise RestoreError(
            f"{settings.DATA_DIR} already contains data: {', '.join(existing)}. To restore the backup and move this "
            f"data to {settings.DATA_DIR}/replaced-<time>, add --replace."
        )
    if has_database and (users := restore_database.other_users()):
        raise RestoreError(f"The database is in use by {users}. Stop every program that uses it, then retry.")


def _check_disk_space(file: BinaryIO) -> None:
    free, size = shutil.disk_usage(settings.TMP_DIR).free, os.fstat(file.fileno()).st_size  # 0 for a pipe
    if size and free < size + SPARE_BYTES:
        raise RestoreError(
            f"The backup needs {size / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free on the disk of "
            f"{settings.DATA_DIR}. Nothing was changed. Free some space, then retry."
        )


# --- the change -----------------------------------------------------------------------------------------------------


@contextmanager
def _marked(name: str) -> Iterator[None]:
    """Mark the restore as unfinished within the context. The mark remains if the process is killed.

    The site doesn't start while the mark exists. Unpacked files are synced to disk before they are moved.
    """
    mark = unfinished_restore()
    previous = mark.read_text() if mark.exists() else None
    os.sync()
    _write(mark, f"{settings.COMMAND} restore {name}\n")
    try:
        yield
    except RestoreError:  # nothing was changed
        if previous is None:
            mark.unlink()
        else:
            _write(mark, previous)
        raise
    os.sync()
    mark.unlink()


def _save_postgresql(replaced: ReplacedDataDir) -> None:
    with atomic_output_file(replaced.create() / "database.tar", force=False) as file:
        write_archive(file, lambda _: None, with_files=False)


def _replace_files(staging: Path, replaced: ReplacedDataDir, everything: bool) -> None:
    """Move the unpacked files into place. `everything`: also move existing files that aren't in the backup."""
    # The lock file isn't in use now. Without it, the directory may be empty, and then needn't be moved.
    (settings.FILES_DIR / ".lock").unlink(missing_ok=True)
    for directory in (settings.FILES_DIR, settings.MMS_DIR):
        staged = staging / directory.name
        if everything or staged.exists():
            replaced.move(directory)
        if staged.exists():
            staged.rename(directory)
    if everything:
        replaced.move(settings.DATA_DIR / "redis")
    shutil.rmtree(settings.RUN_DIR / "services", ignore_errors=True)  # recreated by the task mms.watch_services
    if (staging / KEY).exists():
        # Without replaced data, nothing was encrypted with the existing key, which this command may have created.
        if replaced.path:
            replaced.move(settings.DATA_DIR / KEY)
        (staging / KEY).rename(settings.DATA_DIR / KEY)


def _record_urls(urls: list[str]) -> None:
    """Record the former base URLs of uploads: those in the backup and those of this site."""
    path = settings.FILES_URLS_PATH
    recorded = path.read_text() if path.exists() else ""
    path.write_text("".join(f"{url}\n" for url in dict.fromkeys([*urls, *recorded.splitlines()])))


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
