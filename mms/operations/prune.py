"""Find and delete unused data of the bundled MMS on disk.

The rows determine what is used. An image is used while its row exists; unpacked layers are used while a revision runs,
is starting, or still has a supervisor program.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from mms.engines.process.program import Program
from mms.images import runtimes
from mms.images.packages import install
from mms.images.store import garbage
from mms.images.store.garbage import DiskSpace, Retained, Unused
from mms.images.store.layout import NotInStoreError, Store
from mms.models import OPEN, Image, Revision
from mms.services.rollout import LIVE_STATES

MIN_AGE_SECONDS = 24 * 3600  # newer data stays


class StoreUnavailableError(Exception):
    """Unused data can't be determined or deleted now. The message has the reason."""


@contextmanager
def find_unused() -> Iterator[Unused]:
    """Yield the unused data, by kind. Raises StoreUnavailableError."""
    store = Store(settings.MMS_DIR)
    with _exclusive(store):
        unused = garbage.find_unused(store, _retained())
    yield unused


@contextmanager
def delete_unused() -> Iterator[Unused]:
    """Move unused data out of the store, yield it by kind, and delete it afterwards. Raises StoreUnavailableError."""
    store = Store(settings.MMS_DIR)
    with _trash(store) as trash:
        with _exclusive(store):
            retained = _retained()
            unused = garbage.move_to_trash(store, garbage.find_unused(store, retained), retained, trash)
        yield unused


def trim_packages() -> None:
    """Delete the cache of downloaded packages if it exceeds its limit. Files shared with layers don't count.

    Rollouts continue: uv takes seconds to find unused packages, and only builds use its cache.
    """
    store = Store(settings.MMS_DIR)
    cache = store.root / "cache"
    with suppress(StoreUnavailableError), _trash(store) as trash:
        with store.packages_exclusive() as is_locked:
            if is_locked:
                install.prune_cache(cache)
        if DiskSpace().freed_by(cache / "uv") > settings.MMS_CACHE_MAX_BYTES:
            with _exclusive(store):
                (cache / "uv").rename(trash / "uv")


def _retained() -> Retained:
    """Return what is used. The caller holds the store's lock, so no build or rollout starts at the same time."""
    images = Image.objects.filter(~Q(digest="") | Q(operations__state__in=OPEN))
    live = Revision.objects.filter(Q(state__in=LIVE_STATES) | Q(operations__state__in=OPEN))
    running = set(live.values_list("image__digest", flat=True))
    with_plan = (program for program in Program.with_files(settings.RUN_DIR) if program.plan.exists())
    for program in with_plan:  # a plan exists until its process has ended, regardless of its row
        revisions = Revision.objects.filter(service=UUID(program.service_id), number=program.number)
        running |= set(revisions.values_list("image__digest", flat=True))
    bases = {settings.MMS_BASE_IMAGE, *(runtime.base for runtime in runtimes.RUNTIMES.values())}
    return Retained(
        images={str(pk) for pk in images.values_list("pk", flat=True)},
        digests=set(images.exclude(digest="").values_list("digest", flat=True)),
        running=running - {""},
        bases={(text, runtimes.HOST_PLATFORM) for text in bases if text},
        before=time.time() - MIN_AGE_SECONDS,
    )


@contextmanager
def _exclusive(store: Store) -> Iterator[None]:
    with store.exclusive() as is_locked:
        if not is_locked:
            raise StoreUnavailableError("an image is being built or unpacked")
        try:
            yield
        except NotInStoreError as error:
            raise StoreUnavailableError(
                f"an image in use is damaged, so its layers are unknown; build it again. {error}"
            ) from None


@contextmanager
def _trash(store: Store) -> Iterator[Path]:
    """Yield a folder for data to delete. If this process is killed, the next build removes it."""
    store.prepare()
    with store.scratch_folder() as trash:
        yield trash
