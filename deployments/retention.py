"""How long things are kept: operations that ended long ago are deleted, and rows that have been nothing for as long.

Never an open operation, and never the newest of a row that is there: badges and pages read it. Some hundred rows in
each transaction, so that everybody else gets a turn, and a few seconds at a time: what is left then goes a minute
later. Each transaction judges its rows anew, so being killed, or run twice at once, does no harm.
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
INTERVAL_SECONDS = 3600  # seconds between two looks at everything
RUN_SECONDS = 10.0  # of work at a time
BATCH_ROWS = 250  # rows in one transaction
PAUSE_SECONDS = 0.15  # seconds between two transactions: who waits for SQLite's lock asks for it every 0.1 s
# In this order, for each is referred to by rows of the one before it; with the name of that reference.
REFERENCED_BY: dict[type[Any], str] = {Service: "", Image: "services", Manifest: "images", RegisteredModel: "manifests"}


def prune() -> None:
    """Delete what is kept no longer, unless that was done within the hour. To be called every minute."""
    claim = redis.acquire_lock("retention", INTERVAL_SECONDS, fallback=False)
    if claim and not delete_old(time.monotonic() + RUN_SECONDS):
        redis.release_lock("retention", claim)


def delete_old(deadline: float = float("inf")) -> bool:
    """The same at once, until time.monotonic() is `deadline`; whether everything was done by then."""
    before = timezone.now() - timedelta(days=settings.KEEP_OPERATIONS_DAYS)
    old = ((rows, rows.values_list("pk", flat=True)) for rows in (*_rows(before), _sessions()))
    return all(_delete(rows, list(keys), deadline) for rows, keys in (_operations(before), *old))


def _operations(before: datetime) -> tuple[QuerySet[Operation], list[Any]]:
    """Those that ended before then, and the keys of those of them that were followed by another of the same row."""
    nouns = NOUN.values()
    ended = Operation.objects.filter(state__in=TERMINAL, finished_at__lt=before)
    newest = Operation.objects.order_by().values_list(*nouns).annotate(newest=Max("requested_at"))
    at_of = {tuple(row): at for *row, at in newest}  # not a subquery: that looks through a row's operations for each
    found = ended.values_list(*nouns, "requested_at", "pk")
    return ended, [key for *row, at, key in found if at < at_of[tuple(row)]]


def _rows(before: datetime) -> Iterator[QuerySet[Any]]:
    """Those that vanished at the server before then, or never came to be there; nothing refers to them any more."""
    for row, referred_to in REFERENCED_BY.items():
        recent = Operation.objects.filter(Q(state__in=OPEN) | Q(finished_at__gte=before), **{NOUN[row]: OuterRef("pk")})
        old = Q(vanished_at__lt=before) | Q(mms_id=None, added_at__lt=before)
        rows = row._default_manager.filter(old).exclude(Exists(recent))
        yield rows.filter(**{referred_to: None}) if referred_to else rows


def _sessions() -> QuerySet[AbstractBaseSession]:
    """Of people who signed in and never came back."""
    sessions: type[AbstractBaseSession] = import_module(settings.SESSION_ENGINE).SessionStore.get_model_class()
    return sessions._default_manager.filter(expire_date__lt=timezone.now())


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
        log.info("Deleted %s %s past their retention.", count, rows.model._meta.verbose_name_plural)
    return done >= len(keys)
