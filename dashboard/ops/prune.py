"""Deletion of unused files for `manage.py prune`.

These are uploads that nothing refers to, leftovers of killed processes, and unused files of the bundled MMS
(mms/operations/prune.py). Files of a half of the site that SERVE excludes are on another machine and aren't checked.

An upload is used if any text column of any table contains its URL, whatever FILES_URL was at the time. New columns are
therefore included automatically.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db.models import CharField, JSONField, TextField
from django.db.models.functions import Cast

from dashboard.files import store
from dashboard.ops.backup import database, restore
from dashboard.ops.startup.data_dir import require_finished_restore, require_recorded_database
from dashboard.ops.startup.prepare import delete_paths
from mms.images.store.garbage import DiskSpace, Unused, is_older_than
from mms.operations import prune as mms_prune
from mms.system.locks import locked

MIN_AGE_SECONDS = 24 * 3600  # newer files are never deleted, because an open form may refer to them
FILE_PATH = re.compile(r"/files/([0-9a-f]{64})/")
TEMP_PATTERNS = (f"{store.TEMP_PREFIX}*", "build-*", f"{database.TEMP_PREFIX}*", f"{restore.TEMP_PREFIX}*")
Delete = Callable[[Path], bool]  # returns True if the file was deleted


@dataclass(frozen=True)
class UnusedFiles:
    """Unused files of one kind. `size` is in bytes. `note`: the reason if they weren't checked, else ""."""

    label: str
    count: int
    size: int
    note: str = ""


class BackupRunningError(Exception):
    """A backup or a restore is running, so nothing may be deleted."""


def preview() -> list[UnusedFiles]:
    """Return what could be deleted now. Raises ImproperlyConfigured if the files may not match the database."""
    _require_matching_database()
    return [*_prune_site(_keep, _keep), *_prune_mms(mms_prune.find_unused())]


def prune() -> list[UnusedFiles]:
    """Find unused files again, delete them, and return what was deleted.

    Raises BackupRunningError, and ImproperlyConfigured if the files may not match the database.
    """
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as is_locked:
        if not is_locked:
            raise BackupRunningError
        _require_matching_database()
        return [*_prune_site(_delete_upload, _delete_leftover), *_prune_mms(mms_prune.delete_unused())]


def _require_matching_database() -> None:
    require_finished_restore()
    require_recorded_database()


def _prune_mms(context: AbstractContextManager[Unused]) -> Iterator[UnusedFiles]:
    if "mms" not in settings.SERVE:
        return
    space = DiskSpace()
    try:
        with context as unused:
            for kind, paths in unused.items():
                yield UnusedFiles(kind, len(paths), sum(map(space.freed_by, paths)))
    except mms_prune.StoreUnavailableError as busy:
        yield UnusedFiles("images and layers", 0, 0, f"not now: {busy}")


def _prune_site(delete_upload: Delete, delete_leftover: Delete) -> Iterator[UnusedFiles]:
    if "dashboard" in settings.SERVE:
        yield _measure_and_delete("uploads that nothing refers to", _unused_uploads(), delete_upload)
    yield _measure_and_delete("temporary files of killed processes", _leftovers(), delete_leftover)


def _measure_and_delete(label: str, paths: list[Path], delete: Delete) -> UnusedFiles:
    space = DiskSpace()
    measured = [(path, space.freed_by(path)) for path in paths]
    sizes = [size for path, size in measured if delete(path)]
    return UnusedFiles(label, len(sizes), sum(sizes))


def _keep(_: Path) -> bool:
    return True


# --- uploads ------------------------------------------------------------------------------------------------------


def _unused_uploads() -> list[Path]:
    """Return stored files that no row refers to and no form has used for a day."""
    old = [path for path in settings.FILES_DIR.glob("??/*") if is_older_than(path, time.time() - MIN_AGE_SECONDS)]
    used = _used_digests() if old else set()
    return [path for path in old if path.name not in used]


def _used_digests() -> set[str]:
    """Return the SHA-256 of every upload that the database refers to."""
    digests: set[str] = set()
    for model in apps.get_models():
        for field in model._meta.local_concrete_fields:
            if isinstance(field, CharField | TextField | JSONField):
                texts = model._default_manager.annotate(_text=Cast(field.name, TextField()))
                for text in texts.filter(_text__contains="/files/").values_list("_text", flat=True).iterator():
                    digests.update(FILE_PATH.findall(text))
    return digests


def _delete_upload(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return store.delete_if_unused(path, before=time.time() - MIN_AGE_SECONDS)
    return False


# --- temporary files ----------------------------------------------------------------------------------------------


def _leftovers() -> list[Path]:
    """Return temporary files that are too old to be in use.

    Uploads and builds time out earlier. Backups and restores can't run now, because `prune` holds their lock.
    """
    before = time.time() - max(MIN_AGE_SECONDS, 2 * settings.MMS_BUILD_TIMEOUT)
    paths = [path for pattern in TEMP_PATTERNS for path in settings.TMP_DIR.glob(pattern)]
    return [path for path in paths if is_older_than(path, before)]


def _delete_leftover(path: Path) -> bool:
    delete_paths([path])
    return True
