"""How long the bundled MMS keeps what is over: operations, builds that came to nothing, deleted services, logs, caches.

Never an open operation, and never the newest of an image or a service: clients ask for it. An operation is also what
makes a request that is sent again have one effect. It is kept for KEEP_OPERATIONS_DAYS after its end; nobody repeats a
request that late. Some hundred rows in each transaction, a few seconds at a time; being killed, or run twice, does no
harm.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from mms.models import OPEN, TERMINAL, Image, Operation, Revision, Service
from mms.operations import builds
from mms.operations.prune import trim_packages
from mms.services import route
from mms.services.rollout import LIVE_STATES
from mms.system.locks import locked

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600  # seconds between two looks at everything
BUDGET_SECONDS = 10.0  # of work at a time
REGENERATE_KEYS = "regenerate_keys"
BATCH_ROWS = 250  # rows in one transaction
PAUSE_SECONDS = 0.15  # seconds between two transactions: who waits for SQLite's lock asks for it every 0.1 s


def prune() -> None:
    """Delete what is kept no longer, unless that was done within the hour. To be called every minute."""
    done = settings.RUN_DIR / "retention.done"
    with locked(settings.RUN_DIR / "retention.lock", wait=False) as alone:
        if not alone or time.time() - _changed(done) < INTERVAL_SECONDS:
            return
        if delete_old(time.monotonic() + BUDGET_SECONDS):
            done.touch()


def delete_old(deadline: float = float("inf")) -> bool:
    """The same at once, until time.monotonic() is `deadline`; whether everything was done by then."""
    before = timezone.now() - timedelta(days=settings.KEEP_OPERATIONS_DAYS)
    old = ((rows, rows.values_list("pk", flat=True)) for rows in _rows(before))
    if not all(_delete(rows, list(keys), deadline) for rows, keys in (_operations(before), *old)):
        return False
    _delete_logs(time.time() - settings.KEEP_LOGS_DAYS * 86400)
    _delete_routes()
    trim_packages()
    return True


# --- rows ---------------------------------------------------------------------------------------------------------


def _operations(before: datetime) -> tuple[QuerySet[Operation], list[Any]]:
    """Those that ended before then, and the keys of those of them that were followed by another of the same row.

    A new key is no news of its service: the one before it stays the newest.
    """
    ended = Operation.objects.filter(state__in=TERMINAL, ended_at__lt=before)
    news = Operation.objects.exclude(verb=REGENERATE_KEYS)
    newest = set(news.values_list("image", "service").annotate(newest=Max("created_at")))
    found = ended.values_list("image", "service", "created_at", "verb", "pk")
    told = {
        key for image, service, at, verb, key in found if (image, service, at) in newest and verb != REGENERATE_KEYS
    }
    return ended, [key for *_, key in found if key not in told]


def _rows(before: datetime) -> Iterator[QuerySet[Any]]:
    """What was over before then, in an order in which nothing refers to what comes later."""
    newer = Revision.objects.filter(service=OuterRef("service"), number__gt=OuterRef("number"))
    over = Revision.objects.filter(state__in=["stopped", "failed"], stopped_at__lt=before)
    yield over.filter(Exists(newer), operations=None)  # not the newest, for numbers go on from there
    recent = Operation.objects.filter(Q(state__in=OPEN) | Q(ended_at__gte=before))
    deleted = Service.objects.filter(deleted_at__lt=before).exclude(Exists(recent.filter(service=OuterRef("pk"))))
    yield deleted.exclude(revisions__state__in=LIVE_STATES)
    unbuilt = Image.objects.filter(digest="", created_at__lt=before, revisions=None, services=None)
    yield unbuilt.exclude(Exists(recent.filter(image=OuterRef("pk"))))


def _delete(rows: QuerySet[Any], keys: list[Any], deadline: float) -> bool:
    """Delete those of the rows that have these keys, batch by batch; whether that was done before the deadline."""
    count = done = 0
    while done < len(keys) and time.monotonic() < deadline:
        with transaction.atomic():
            deleted = rows.filter(pk__in=keys[done : done + BATCH_ROWS]).delete()[1]
        count += deleted.get(rows.model._meta.label, 0)
        done += BATCH_ROWS
        time.sleep(PAUSE_SECONDS)
    if count:
        log.info("%s %s were kept long enough and deleted.", count, rows.model._meta.verbose_name_plural)
    return done >= len(keys)


# --- files --------------------------------------------------------------------------------------------------------


def _delete_logs(before: float) -> None:
    """Logs that nobody has written to since then: of builds, and of services that are gone."""
    for path in builds.log_path("x").parent.glob("*.log"):
        if _changed(path) < before:
            path.unlink(missing_ok=True)
    services = settings.MMS_DIR / "services"
    kept = {str(pk) for pk in Service.objects.filter(deleted_at=None).values_list("pk", flat=True)}
    for folder in services.iterdir() if services.exists() else []:
        if folder.name not in kept and max(map(_changed, [folder, *folder.glob("*")])) < before:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_routes() -> None:
    """Routes to what is deleted, or has no row: a worker died before it withdrew them."""
    with route.lock():
        kept = {str(pk) for pk in Service.objects.filter(deleted_at=None).values_list("pk", flat=True)}
        for path in route.directory().glob("*"):
            if path.stem not in kept:  # writers hold the lock, so what they write is not among these
                path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """When the file was last changed, as a Unix time; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
