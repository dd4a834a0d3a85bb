"""What the bundled MMS holds on its disk and nothing uses: the rows say what is used, the store finds the rest.

Images are used while their row is there; unpacked layers while a revision runs, comes up, or has a program yet.
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

MIN_AGE_SECONDS = 24 * 3600  # seconds: what is newer stays


class StoreUnavailableError(Exception):
    """Nothing is taken away now. The text says why."""


@contextmanager
def find_unused() -> Iterator[Unused]:
    """What could go now, by kind. Raises StoreUnavailableError."""
    store = Store(settings.MMS_DIR)
    with _alone(store):
        unused = garbage.find_unused(store, _keep())
    yield unused


@contextmanager
def delete_unused() -> Iterator[Unused]:
    """The same, taken out of the store; deleted when the context ends. Raises StoreUnavailableError."""
    store = Store(settings.MMS_DIR)
    with _trash(store) as trash:
        with _alone(store):
            keep = _keep()
            unused = garbage.move_to_trash(store, garbage.find_unused(store, keep), keep, trash)
        yield unused


def trim_packages() -> None:
    """Retained the cache of downloaded packages within its bound: what layers hold as well counts for nothing."""
    store = Store(settings.MMS_DIR)
    cache = store.root / "cache"
    with suppress(StoreUnavailableError), _trash(store) as trash:
        with _alone(store):
            install.prune_cache(cache)
        if DiskSpace().freed_by(cache / "uv") > settings.MMS_CACHE_MAX_BYTES:
            with _alone(store):
                (cache / "uv").rename(trash / "uv")


def _keep() -> Retained:
    """Asked of the database by who is alone in the store: what is built or rolled out later begins later."""
    images = Image.objects.filter(~Q(digest="") | Q(operations__state__in=OPEN))
    live = Revision.objects.filter(Q(state__in=LIVE_STATES) | Q(operations__state__in=OPEN))
    running = set(live.values_list("image__digest", flat=True))
    with_plan = (program for program in Program.with_files(settings.RUN_DIR) if program.plan.exists())
    for program in with_plan:  # it is deleted only when the process has ended, whatever the rows say
        of_program = Revision.objects.filter(service=UUID(program.service_id), number=program.number)
        running |= set(of_program.values_list("image__digest", flat=True))
    bases = {settings.MMS_BASE_IMAGE, *(runtime.base for runtime in runtimes.RUNTIMES.values())}
    return Retained(
        images={str(pk) for pk in images.values_list("pk", flat=True)},
        digests=set(images.exclude(digest="").values_list("digest", flat=True)),
        running=running - {""},
        bases={(text, runtimes.HOST_PLATFORM) for text in bases if text},
        before=time.time() - MIN_AGE_SECONDS,
    )


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    with store.exclusive() as alone:
        if not alone:
            raise StoreUnavailableError("an image is being built or unpacked")
        try:
            yield
        except NotInStoreError as error:
            raise StoreUnavailableError(
                f"a used image is damaged, so what it needs is not known; build it again. {error}"
            ) from None


@contextmanager
def _trash(store: Store) -> Iterator[Path]:
    """A folder in the store for what is taken out of it. Should this process be killed, the next build clears it."""
    store.prepare()
    with store.scratch_folder() as trash:
        yield trash
