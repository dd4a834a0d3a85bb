"""What `manage.py prune` shows and frees: uploads that nothing refers to, what killed processes left, and what the
bundled MMS has no use for (mms/operations/prune.py). What SERVE does not name is not looked at, for it lies elsewhere.

An upload is used while any text of any table names it. So no list of columns has to be kept up to date here, and it
does not matter by which FILES_URL it was registered.
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
from dashboard.ops.startup.data_dir import refuse_another_database, refuse_half_a_restore
from dashboard.ops.startup.prepare import remove
from mms.images.store.garbage import DiskSpace, Unused, is_older_than
from mms.operations import prune as mms_prune
from mms.system.locks import locked

YOUNG = 24 * 3600  # seconds: what is newer stays, for a form may be open that will refer to it
NAMED = re.compile(r"/files/([0-9a-f]{64})/")
LEFT_BEHIND = (f"{store.TEMP_PREFIX}*", "build-*", f"{database.PREFIX}*", f"{restore.PREFIX}*")
Remove = Callable[[Path], bool]


@dataclass(frozen=True)
class Part:
    """One kind of things that nothing uses. `size` in bytes; `note`: why it was not looked at."""

    what: str
    count: int
    size: int
    note: str = ""


class BackupRuns(Exception):
    """A backup is being made or put in place just now: no file is taken away meanwhile."""


def look() -> list[Part]:
    """What could be freed now. Raises ImproperlyConfigured where the files do not belong to the database."""
    _refuse_to_judge()
    return [*_of_the_site(_leave, _leave), *_of_the_mms(mms_prune.find_unused())]


def free() -> list[Part]:
    """Free it; what was freed. Everything is judged anew. Raises BackupRuns, and what `look` raises."""
    with locked(settings.RUN_DIR / "backup.lock", wait=False) as alone:
        if not alone:
            raise BackupRuns
        _refuse_to_judge()
        return [*_of_the_site(_remove_upload, _remove_leftover), *_of_the_mms(mms_prune.delete_unused())]


def _refuse_to_judge() -> None:
    refuse_half_a_restore()
    refuse_another_database()


def _of_the_mms(context: AbstractContextManager[Unused]) -> Iterator[Part]:
    if "mms" not in settings.SERVE:
        return
    space = DiskSpace()
    try:
        with context as unused:
            for kind, paths in unused.items():
                yield Part(kind, len(paths), sum(map(space.freed_by, paths)))
    except mms_prune.StoreUnavailableError as busy:
        yield Part("images and layers", 0, 0, f"not now: {busy}")


def _of_the_site(remove_upload: Remove, remove_leftover: Remove) -> Iterator[Part]:
    if "dashboard" in settings.SERVE:
        yield _part("uploads that nothing refers to", _uploads(), remove_upload)
    yield _part("temporary files of killed processes", _leftovers(), remove_leftover)


def _part(what: str, paths: list[Path], remove: Remove) -> Part:
    space = DiskSpace()
    measured = [(path, space.freed_by(path)) for path in paths]
    sizes = [size for path, size in measured if remove(path)]
    return Part(what, len(sizes), sum(sizes))


def _leave(path: Path) -> bool:
    return True


# --- uploads ------------------------------------------------------------------------------------------------------


def _uploads() -> list[Path]:
    """Kept files that no row names and no form has asked for since yesterday."""
    old = [path for path in settings.FILES_DIR.glob("??/*") if is_older_than(path, time.time() - YOUNG)]
    named = _named() if old else set()
    return [path for path in old if path.name not in named]


def _named() -> set[str]:
    """The sha256 of every upload that is named anywhere in the database."""
    found: set[str] = set()
    for model in apps.get_models():
        for field in model._meta.local_concrete_fields:
            if isinstance(field, CharField | TextField | JSONField):
                texts = model._default_manager.annotate(_text=Cast(field.name, TextField()))
                for text in texts.filter(_text__contains="/files/").values_list("_text", flat=True).iterator():
                    found.update(NAMED.findall(text))
    return found


def _remove_upload(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return store.delete_if_unused(path, before=time.time() - YOUNG)
    return False


# --- temporary files ----------------------------------------------------------------------------------------------


def _leftovers() -> list[Path]:
    """What nobody is at any more: no upload rests for so long, no build takes so long, and who makes a backup or puts
    one in place holds the lock that `free` has."""
    before = time.time() - max(YOUNG, 2 * settings.MMS_BUILD_TIMEOUT)
    found = [path for pattern in LEFT_BEHIND for path in settings.TMP_DIR.glob(pattern)]
    return [path for path in found if is_older_than(path, before)]


def _remove_leftover(path: Path) -> bool:
    remove([path])
    return True
