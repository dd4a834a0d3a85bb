"""Retention: delete ended operations, vanished rows and expired sessions after KEEP_OPERATIONS_DAYS.

Open operations and the newest operation of a present row are never deleted: badges and pages read them. Rows are
deleted in batches of BATCH_ROWS, for at most RUN_SECONDS a minute, so that other writers can run in between. Each
transaction re-evaluates its rows, so an interrupted or concurrent run does no harm.
"""

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet
from django.utils import timezone

from deployments.live import redis
from deployments.live.badges import NOUN
from deployments.models import Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN, TERMINAL

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 3600  # between two complete runs
RUN_SECONDS = 10.0  # of work per call
BATCH_ROWS = 250  # per transaction
PAUSE_SECONDS = 0.15  # between transactions; SQLite's busy handler retries every 0.1 s
# Each class is referenced by rows of the class before it; the value is the name of that relation. Order matters.
REFERENCED_BY: dict[type[Any], str] = {Service: "", Image: "services", Manifest: "images", RegisteredModel: "manifests"}


def prune() -> None:
    """Delete expired rows unless a run was completed within the last hour. Scheduled every minute."""
    token = redis.acquire_lock("retention", INTERVAL_SECONDS, fallback=False)
    if token and not delete_old(time.monotonic() + RUN_SECONDS):
        redis.release_lock("retention", token)


def delete_old(deadline: float = float("inf")) -> bool:
    """Delete expired rows until time.monotonic() reaches `deadline`. Return True if nothing is left."""
    before = timezone.now() - timedelta(days=settings.KEEP_OPERATIONS_DAYS)
    old = ((rows, rows.values_list("pk", flat=True)) for rows in (*_rows(before), _sessions()))
    return all(_delete(rows, list(keys), deadline) for rows, keys in (_operations(before), *old))


def _operations(before: datetime) -> tuple[QuerySet[Operation], list[Any]]:
    """Return operations that ended before `before`, and the keys of those that have a newer one of the same row."""
    nouns = NOUN.values()
    ended = Operation.objects.filter(state__in=TERMINAL, finished_at__lt=before)
    newest = Operation.objects.order_by().values_list(*nouns).annotate(newest=Max("requested_at"))
    at_of = {tuple(row): at for *row, at in newest}  # a subquery would scan all operations of the row for each one
    found = ended.values_list(*nouns, "requested_at", "pk")
    return ended, [key for *row, at, key in found if at < at_of[tuple(row)]]


def _rows(before: datetime) -> Iterator[QuerySet[Any]]:
    """Yield, per class, unreferenced rows that vanished before `before`, or were added before it and never created."""
    for row, referred_to in REFERENCED_BY.items():
        recent = Operation.objects.filter(Q(state__in=OPEN) | Q(finished_at__gte=before), **{NOUN[row]: OuterRef("pk")})
        old = Q(vanished_at__lt=before) | Q(mms_id=None, added_at__lt=before)
        rows = row._default_manager.filter(old).exclude(Exists(recent))
        yield rows.filter(**{referred_to: None}) if referred_to else rows


def _sessions() -> QuerySet[AbstractBaseSession]:
    """Return the expired sessions."""
    sessions: type[AbstractBaseSession] = import_module(settings.SESSION_ENGINE).SessionStore.get_model_class()
    return sessions._default_manager.filter(expire_date__lt=timezone.now())


def _delete(rows: QuerySet[Any], keys: list[Any], deadline: float) -> bool:
    """Delete the rows with these keys in batches. Return True if all were processed before the deadline."""
    count = done = 0
    while done < len(keys) and time.monotonic() < deadline:
        with transaction.atomic():
            deleted = rows.filter(pk__in=keys[done : done + BATCH_ROWS]).delete()[1]
        count += deleted.get(rows.model._meta.label, 0)
        done += BATCH_ROWS
        time.sleep(PAUSE_SECONDS)
    if count:
        log.info("Deleted %s %s past their retention.", count, rows.model._meta.verbose_name_plural)
    return done >= len(keys)
