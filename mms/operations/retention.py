"""Retention in the bundled MMS of ended operations, failed builds, deleted services, logs and caches.

Open operations stay, and so does the newest operation of each image and service, which clients may poll. Operations
also make repeated requests idempotent, so they stay for KEEP_OPERATIONS_DAYS after their end. A few hundred rows are
deleted in each transaction, for a few seconds at a time. Running this twice, or killing it, is safe.
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

from mms import changes
from mms.models import OPEN, TERMINAL, Image, Operation, Revision, Service
from mms.operations import builds
from mms.operations.prune import trim_packages
from mms.services import route
from mms.services.rollout import LIVE_STATES
from mms.system.locks import locked

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600  # between two complete runs
BUDGET_SECONDS = 10.0  # for each call
REGENERATE_KEYS = "regenerate_keys"
BATCH_ROWS = 250  # in one transaction
PAUSE_SECONDS = 0.15  # between transactions: a process that waits for SQLite's lock polls every 0.1 s


def prune() -> None:
    """Delete expired rows and files, unless that was done within INTERVAL_SECONDS. Call this every minute."""
    done = settings.RUN_DIR / "retention.done"
    with locked(settings.RUN_DIR / "retention.lock", wait=False) as acquired:
        if not acquired or time.time() - _modified_at(done) < INTERVAL_SECONDS:
            return
        if delete_old(time.monotonic() + BUDGET_SECONDS):
            done.touch()


def delete_old(deadline: float = float("inf")) -> bool:
    """Delete expired rows and files now. Return False if time.monotonic() reached `deadline` before the end."""
    before = timezone.now() - timedelta(days=settings.KEEP_OPERATIONS_DAYS)
    old = ((rows, rows.values_list("pk", flat=True)) for rows in _rows(before))
    if not all(_delete(rows, list(keys), deadline) for rows, keys in (_operations(before), *old)):
        return False
    changes.delete_old()
    _delete_logs(time.time() - settings.KEEP_LOGS_DAYS * 86400)
    _delete_routes()
    trim_packages()
    return True


# --- rows ---------------------------------------------------------------------------------------------------------


def _operations(before: datetime) -> tuple[QuerySet[Operation], list[Any]]:
    """Return operations that ended before `before`, and the keys of those that aren't the newest of their resource.

    Operations that replace scoring keys don't count as the newest.
    """
    ended = Operation.objects.filter(state__in=TERMINAL, ended_at__lt=before)
    countable = Operation.objects.exclude(verb=REGENERATE_KEYS)
    newest = set(countable.values_list("image", "service").annotate(newest=Max("created_at")))
    rows = list(ended.values_list("image", "service", "created_at", "verb", "pk"))
    newest_keys = {
        key for image, service, at, verb, key in rows if (image, service, at) in newest and verb != REGENERATE_KEYS
    }
    return ended, [key for *_, key in rows if key not in newest_keys]


def _rows(before: datetime) -> Iterator[QuerySet[Any]]:
    """Yield the expired rows of each kind, ordered so that no row refers to a later one."""
    newer = Revision.objects.filter(service=OuterRef("service"), number__gt=OuterRef("number"))
    ended = Revision.objects.filter(state__in=["stopped", "failed"], stopped_at__lt=before)
    yield ended.filter(Exists(newer), operations=None)  # not the newest, because the next number follows it
    recent = Operation.objects.filter(Q(state__in=OPEN) | Q(ended_at__gte=before))
    deleted = Service.objects.filter(deleted_at__lt=before).exclude(Exists(recent.filter(service=OuterRef("pk"))))
    yield deleted.exclude(revisions__state__in=LIVE_STATES)
    unbuilt = Image.objects.filter(digest="", created_at__lt=before, revisions=None, services=None)
    yield unbuilt.exclude(Exists(recent.filter(image=OuterRef("pk"))))


def _delete(rows: QuerySet[Any], keys: list[Any], deadline: float) -> bool:
    """Delete the rows with these keys in batches. Return False if the deadline passed before the end."""
    count = done = 0
    while done < len(keys) and time.monotonic() < deadline:
        with transaction.atomic():
            deleted = rows.filter(pk__in=keys[done : done + BATCH_ROWS]).delete()[1]
        count += deleted.get(rows.model._meta.label, 0)
        done += BATCH_ROWS
        time.sleep(PAUSE_SECONDS)
    if count:
        log.info("Deleted %s %s whose retention period has ended.", count, rows.model._meta.verbose_name_plural)
    return done >= len(keys)


# --- files --------------------------------------------------------------------------------------------------------


def _delete_logs(before: float) -> None:
    """Delete logs of builds and of deleted services that were last written before `before`."""
    for path in builds.log_path("x").parent.glob("*.log"):
        if _modified_at(path) < before:
            path.unlink(missing_ok=True)
    services = settings.MMS_DIR / "services"
    live_ids = {str(pk) for pk in Service.objects.filter(deleted_at=None).values_list("pk", flat=True)}
    for folder in services.iterdir() if services.exists() else []:
        if folder.name not in live_ids and max(map(_modified_at, [folder, *folder.glob("*")])) < before:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_routes() -> None:
    """Delete routes of deleted services, left behind by killed workers."""
    with route.lock():
        live_ids = {str(pk) for pk in Service.objects.filter(deleted_at=None).values_list("pk", flat=True)}
        for path in route.directory().glob("*"):
            if path.stem not in live_ids:  # writers hold the lock, so their files aren't affected
                path.unlink(missing_ok=True)


def _modified_at(path: Path) -> float:
    """Return the Unix time of the file's last change, 0 if it doesn't exist."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
