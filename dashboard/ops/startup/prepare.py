"""What has to be true before the site runs: tables, static files, and the account `local`.

Every step looks first, cheaply, whether there is anything to do: a second start must not take seconds.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import OperationalError, connection

from dashboard.ops.backup import database
from dashboard.ops.startup import migrate
from dashboard.ops.startup.data_dir import note_database, refuse_half_a_restore
from mms.system.locks import locked

MIGRATION_LOCK = 7_161_025  # any number, the same for everybody who migrates this database

logger = logging.getLogger(__name__)


def prepare(serves_pages: bool = True) -> None:
    """Bring the database up to date, and the static files for a process that serves pages.

    Safe to call at every start, and by several processes at once. Raises ImproperlyConfigured where the data is not
    for this release, or not whole.
    """
    refuse_half_a_restore()
    note_files_url()
    wait_for_database()
    refuse_newer_database()
    if not is_migrated():
        with migration_lock():
            migrate.migrate()
    note_database()
    if serves_pages and "dashboard" in settings.SERVE and not settings.RELOAD:
        collect_static()


def note_files_url() -> None:
    """Note where uploads are fetched from now on: what is registered so must be found after that has changed."""
    path: Path = settings.FILES_URLS_PATH
    noted = path.read_text().splitlines() if path.exists() else []
    if settings.FILES_URL not in noted:
        with path.open("a") as file:
            file.write(f"{settings.FILES_URL}\n")


def wait_for_database(seconds: float = 60) -> None:
    """Return once the database answers; raises OperationalError after `seconds` without an answer."""
    until = time.monotonic() + seconds
    while True:
        try:
            return connection.ensure_connection()
        except OperationalError as error:
            if time.monotonic() > until:
                raise
            logger.warning("The database isn't responding yet: %s", str(error).strip().splitlines()[0])
            time.sleep(1)


def is_migrated() -> bool:
    """Whether every migration on disk is recorded in the database, without loading one of them."""
    return migrate.on_disk() <= migrate.applied()


def refuse_newer_database() -> None:
    """An older release would half work on tables that it does not know."""
    if unknown := migrate.unknown():
        raise ImproperlyConfigured(
            f"The database was used by a newer release than this one ({migrate.names(unknown)} is unknown here). "
            "Install that release again, or restore a backup made before."
        )


@contextmanager
def migration_lock() -> Iterator[None]:
    """One migrates at a time: of all who use this PostgreSQL, or of all who use this SQLite file."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
    else:
        with locked(Path(f"{connection.settings_dict['NAME']}.migrate")):
            yield


def clear_temporary_files() -> None:
    """Remove what killed processes left in TMP_DIR. Only for who knows that nothing of the site runs; a backup may."""
    left = list(settings.TMP_DIR.iterdir())
    snapshots = [path for path in left if path.name.startswith(database.PREFIX)]
    remove(set(left).difference(snapshots))
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as no_backup:
        if no_backup:
            remove(snapshots)


def remove(paths: Iterable[Path]) -> None:
    """Delete these files, links and whole folders, as far as that goes."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def collect_static() -> None:
    """Collect and compress the static files, unless none of them changed since the last time. One does it at a time."""
    state = _static_state()
    stamp = settings.STATIC_ROOT / ".collected"
    with locked(settings.RUN_DIR / "static.lock"):
        if stamp.exists() and stamp.read_text() == state:
            return
        call_command("collectstatic", interactive=False, verbosity=0, clear=True)
        stamp.write_text(state)


def _static_state() -> str:
    """A digest of name, size and time of every static file of the site and of its libraries."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
