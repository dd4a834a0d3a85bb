"""Putting a backup in place: `manage.py restore`.

Everything is unpacked beside the data and compared with its checksums before anything is changed; then it is renamed
into place, which takes no time. A restore that fails before that changes nothing, and one that is killed, or fails for
want of room at that, can be run again.
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

from dashboard import environment
from dashboard.ops.backup import restore_database as database
from dashboard.ops.backup.archive import Damaged, Reader
from dashboard.ops.backup.create import ABOUT, FALLBACKS, KEY, URLS, Failed, files_stay, whole_file, write
from dashboard.ops.backup.database import Table
from dashboard.ops.startup.data_dir import unfinished_restore
from mms.system.locks import locked

PREFIX = "restore-"  # of the folder that a backup is unpacked in
SPARE_BYTES = 64 * 1024**2  # of the disk that a restore leaves free


@dataclass(frozen=True)
class Done:
    """What a restore did."""

    version: str
    made_at: datetime
    rows: int | None  # None: the backup has no database
    in_doubt: int  # operations that may have been sent since the backup
    aside: Path | None  # where what was here is now


@dataclass(frozen=True)
class About:
    """What a backup says of itself."""

    version: str
    made_at: datetime
    database: database.Content | None


@dataclass(frozen=True)
class Keys:
    """The secret keys that the data of a backup is encrypted with."""

    current: str
    fallbacks: list[str]


class Aside:
    """Where what was here goes: a folder in DATA_DIR, made when something goes there."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    def take(self, path: Path) -> None:
        """Move it there; what is missing or empty stays."""
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            shutil.move(path, self.opened() / path.name)

    def opened(self) -> Path:
        """The folder, which is nobody else's: another restore may have begun in the same second."""
        name, number = f"replaced-{timezone.now():%Y%m%d-%H%M%S}", 1
        while self.folder is None:
            folder = settings.DATA_DIR / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                self.folder = folder
            number += 1
        return self.folder


def restore(file: BinaryIO, name: str, replace: bool) -> Done:
    """Put the backup in `file`, which people call `name`, in place. Raises Failed, Damaged, OSError, DatabaseError."""
    with _nothing_runs(), files_stay(), _staging() as folder:
        reader = Reader(file)
        about = _about(_text(reader, ABOUT))
        keys = Keys(_text(reader, KEY), list(filter(None, _text(reader, FALLBACKS).split(","))))
        urls = _text(reader, URLS).splitlines()
        if about.database:
            database.check(about.database)
        _check_keys(keys, name, takes_over=_takes_key_over(about))
        _check_place(about, replace)
        _check_room(file)
        reader.unpack(folder)
        return _put(folder, about, keys, urls, name)


def _put(folder: Path, about: About, keys: Keys, urls: list[str], name: str) -> Done:
    made_at, content, aside = about.made_at, about.database, Aside()
    if content and database.vendor() == "postgresql" and database.is_filled():
        _keep_what_postgresql_holds(aside)
    if _takes_key_over(about):
        settings.SECRET_KEY = keys.current
        _write(folder / KEY, keys.current)
    in_doubt = database.prepare(folder, made_at) if content else 0
    with _marked(name):
        if content:
            database.place(folder, content, aside.take)
        _place_files(folder, aside, everything=bool(content))
        _note_urls(urls)
        in_doubt += database.finish(made_at) if content else 0
    rows = sum(table.rows for table in content.tables) if content else None
    return Done(about.version, made_at, rows, in_doubt, aside.folder)


# --- before anything is changed -------------------------------------------------------------------------------------


@contextmanager
def _nothing_runs() -> Iterator[None]:
    with locked(settings.RUN_DIR / "up.lock", wait=False) as alone:  # `up` holds it as long as the site runs
        if not alone:
            raise Failed(f"The site is running with the data in {settings.DATA_DIR}. Stop it first.")
        yield


@contextmanager
def _staging() -> Iterator[Path]:
    for left in settings.TMP_DIR.glob(f"{PREFIX}*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=settings.TMP_DIR))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _text(reader: Reader, name: str) -> str:
    try:
        return reader.small(name).decode()
    except UnicodeDecodeError:
        raise Damaged(f"Its {name} isn't text.") from None


def _about(text: str) -> About:
    try:
        about = json.loads(text)
        made_at, content = datetime.fromisoformat(about["made_at"]), about["database"]
        if made_at.tzinfo is None:
            raise ValueError(made_at)
        return About(_string(about["version"]), made_at, None if content is None else _content(content))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"Its {ABOUT} can't be read.") from None


def _content(found: Any) -> database.Content:
    tables = [
        Table(_string(table["name"]), _number(table["rows"]), [*map(_string, table["columns"])])
        for table in found["tables"]
    ]
    migrations = {(_string(app), _string(name)) for app, name in found["migrations"]}
    return database.Content(_string(found["vendor"]), migrations, tables)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value


def _takes_key_over(about: About) -> bool:
    """Whether the backup's key becomes the key of this site. One in the environment, or of a database here, stays."""
    return bool(about.database) and not environment.is_set("SECRET_KEY")


def _check_keys(keys: Keys, name: str, takes_over: bool) -> None:
    known = {keys.current if takes_over else settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS}
    lacking = [KEY] if keys.current not in known else []
    lacking += [FALLBACKS] if set(keys.fallbacks) - known else []
    if lacking:
        archive = "FILE" if name == "-" else shlex.quote(name)
        values = ",".join(f"$(tar -xOf {archive} {member})" for member in lacking)
        raise Failed(
            "The data in this backup is encrypted with a secret key that this site doesn't have. Add that key for "
            "the restore and for every later start:\n"
            f'  export SECRET_KEY_FALLBACKS="{values},$SECRET_KEY_FALLBACKS"'
        )


def _check_place(about: About, replace: bool) -> None:
    """Raise Failed where there is data already that nobody said to replace, or where somebody uses it."""
    whole = bool(about.database)
    here = ["a database"] if whole and database.is_filled() else []
    here += ["uploads"] if any(settings.FILES_DIR.glob("??/*")) else []
    here += ["images"] if Path(settings.MMS_DIR, "oci").exists() else []
    if here and not replace and not unfinished_restore().exists():
        raise Failed(
            f"Data already exists here ({', '.join(here)}). Use --replace to move it into a folder in "
            f"{settings.DATA_DIR} and restore the backup in its place."
        )
    if whole and (others := database.others()):
        raise Failed(f"The database is in use by {others}. Stop everything that uses it first.")


def _check_room(file: BinaryIO) -> None:
    free, size = shutil.disk_usage(settings.TMP_DIR).free, os.fstat(file.fileno()).st_size  # 0 for a pipe
    if size and free < size + SPARE_BYTES:
        raise Failed(
            f"The backup needs {size / 1e6:.0f} MB and the disk of {settings.DATA_DIR} has {free / 1e6:.0f} MB free. "
            "Free some space there first. Nothing was changed."
        )


# --- the change -----------------------------------------------------------------------------------------------------


@contextmanager
def _marked(name: str) -> Iterator[None]:
    """While this lasts, and where it is killed, the site does not start. What is moved is on disk before."""
    mark = unfinished_restore()
    killed_before = mark.read_text() if mark.exists() else None
    os.sync()
    _write(mark, f"{settings.COMMAND} restore {name}\n")
    try:
        yield
    except Failed:  # it changed nothing, so all is as sound as it was before
        if killed_before is None:
            mark.unlink()
        else:
            _write(mark, killed_before)
        raise
    os.sync()
    mark.unlink()


def _keep_what_postgresql_holds(aside: Aside) -> None:
    with whole_file(aside.opened() / "database.tar", force=False) as file:
        write(file, lambda held: None, with_files=False)


def _place_files(folder: Path, aside: Aside, everything: bool) -> None:
    """Rename what was unpacked into place. What belongs to other data than the new goes with what was here."""
    (settings.FILES_DIR / ".lock").unlink(missing_ok=True)  # nobody holds it, and it is nothing to be kept
    for place in (settings.FILES_DIR, settings.MMS_DIR):
        staged = folder / place.name
        if everything or staged.exists():
            aside.take(place)
        if staged.exists():
            staged.rename(place)
    if everything:
        aside.take(settings.DATA_DIR / "redis")
    shutil.rmtree(settings.RUN_DIR / "services", ignore_errors=True)  # programs of services: made again by the watch
    if (folder / KEY).exists():
        if aside.folder:  # else the key here, perhaps made a moment ago, has encrypted nothing
            aside.take(settings.DATA_DIR / KEY)
        (folder / KEY).rename(settings.DATA_DIR / KEY)


def _note_urls(urls: list[str]) -> None:
    """Former addresses of uploads: those of the backup, and those noted here."""
    path = settings.FILES_URLS_PATH
    noted = path.read_text() if path.exists() else ""
    path.write_text("".join(f"{url}\n" for url in dict.fromkeys([*urls, *noted.splitlines()])))


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
