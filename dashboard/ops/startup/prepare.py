"""Preparation of the database and the static files before the site starts.

Each step first checks whether it is needed, so that later starts are fast.
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
from dashboard.ops.startup.data_dir import record_database, require_finished_restore
from encryption import check
from mms import changes
from mms.system.locks import locked

MIGRATION_LOCK_ID = 7_161_025  # arbitrary, but the same for every process that migrates this database

logger = logging.getLogger(__name__)


def prepare(serves_pages: bool = True) -> None:
    """Migrate the database, and collect the static files if the process serves pages.

    Safe to call at every start, and by several processes at the same time. Raises ImproperlyConfigured if a restore is
    unfinished, a newer release has used the database, or its secrets are encrypted with another key.
    """
    require_finished_restore()
    record_files_url()
    wait_for_database()
    refuse_newer_database()
    if not is_migrated():
        with migration_lock():
            migrate.migrate()
    check.require_key()
    check.ensure_recorded()
    record_database()
    if serves_pages and "dashboard" in settings.SERVE and not settings.RELOAD:
        collect_static()


def record_files_url() -> None:
    """Record the base URL of uploads, so that files registered with it are still found after it changes."""
    path: Path = settings.FILES_URLS_PATH
    recorded = path.read_text().splitlines() if path.exists() else []
    if settings.FILES_URL not in recorded:
        with path.open("a") as file:
            file.write(f"{settings.FILES_URL}\n")


def wait_for_database(seconds: float = 60) -> None:
    """Wait until the database responds. Raises OperationalError if it doesn't within `seconds`."""
    until = time.monotonic() + seconds
    while True:
        try:
            return connection.ensure_connection()
        except OperationalError as error:
            if time.monotonic() > until:
                raise
            logger.warning("Waiting for the database: %s", str(error).strip().splitlines()[0])
            time.sleep(1)


def is_migrated() -> bool:
    """Return True if every migration of this release, and what follows the last one, is complete."""
    return migrate.on_disk() <= migrate.applied() and changes.has_triggers(connection)


def refuse_newer_database() -> None:
    """Raise ImproperlyConfigured if a newer release has migrated the database."""
    if unknown := migrate.unknown():
        raise ImproperlyConfigured(
            f"The database was migrated by a newer release (unknown here: {migrate.format_names(unknown)}). Install "
            "that release again, or restore a backup made before the upgrade."
        )


@contextmanager
def migration_lock() -> Iterator[None]:
    """Hold the lock that lets only one process migrate this database at a time."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK_ID])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK_ID])
    else:
        with locked(Path(f"{connection.settings_dict['NAME']}.migrate")):
            yield


def clear_temporary_files() -> None:
    """Delete what killed processes left in TMP_DIR.

    The caller must make sure that no program of the site is running. A backup may be running: its files aren't deleted.
    """
    paths = list(settings.TMP_DIR.iterdir())
    snapshots = [path for path in paths if path.name.startswith(database.TEMP_PREFIX)]
    delete_paths(set(paths).difference(snapshots))
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as no_backup:
        if no_backup:
            delete_paths(snapshots)


def delete_paths(paths: Iterable[Path]) -> None:
    """Delete files, links and directory trees, and ignore those that can't be deleted or are missing."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def collect_static() -> None:
    """Collect and compress the static files if any has changed. Only one process does so at a time."""
    state = _static_state()
    stamp = settings.STATIC_ROOT / ".collected"
    with locked(settings.RUN_DIR / "static.lock"):
        if stamp.exists() and stamp.read_text() == state:
            return
        call_command("collectstatic", interactive=False, verbosity=0, clear=True)
        stamp.write_text(state)


def _static_state() -> str:
    """Return a digest of the names, sizes and times of all static files, including those of libraries."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for name, storage in finder.list([]):
            stat = Path(storage.path(name)).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
