"""How long things are kept: operations that ended long ago are deleted, and rows that have been nothing for as long.

Never an open operation, and never the newest of a row that is there: badges and pages read it. Some hundred rows in
each transaction, so that everybody else gets a turn, and a few seconds at a time: what is left then goes a minute
later. Each transaction judges its rows anew, so being killed, or run twice at once, does no harm.
"""

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from deployments import volatile
from deployments.badges import NOUN
from deployments.models import Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN, TERMINAL

log = logging.getLogger(__name__)
EVERY = 3600  # seconds between two looks at everything
SECONDS = 10.0  # of work at a time
BATCH = 500  # rows in one transaction
PAUSE = 0.05  # seconds between two transactions: SQLite hands its lock to whoever happens to ask
# In this order, for each is referred to by rows of the one before it; with the name of that reference.
ROWS: dict[type[Any], str] = {Service: "", Image: "services", Manifest: "images", RegisteredModel: "manifests"}


def prune() -> None:
    """Delete what is kept no longer, unless that was done within the hour. To be called every minute."""
    if volatile.claim("retention", EVERY, fallback=False) and not delete_old(time.monotonic() + SECONDS):
        volatile.release("retention")


def delete_old(deadline: float = float("inf")) -> bool:
    """The same at once, until time.monotonic() is `deadline`; whether everything was done by then."""
    before = timezone.now() - timedelta(days=settings.KEEP_OPERATIONS_DAYS)
    return all(_delete(rows, deadline) for rows in (_operations(before), *_rows(before), _sessions()))


def _operations(before: datetime) -> QuerySet[Operation]:
    """Those that ended before then and were followed by another one of the same row."""
    later = Operation.objects.filter(requested_at__gt=OuterRef("requested_at"))
    followed = Q()
    for noun in NOUN.values():
        followed |= Q(Exists(later.filter(**{noun: OuterRef(noun)})))
    return Operation.objects.filter(followed, state__in=TERMINAL, finished_at__lt=before)


def _rows(before: datetime) -> Iterator[QuerySet[Any]]:
    """Those that vanished at the server before then, or never came to be there; nothing refers to them any more."""
    for row, referred_to in ROWS.items():
        recent = Operation.objects.filter(Q(state__in=OPEN) | Q(finished_at__gte=before), **{NOUN[row]: OuterRef("pk")})
        old = Q(vanished_at__lt=before) | Q(mms_id=None, added_at__lt=before)
        rows = row._default_manager.filter(old).exclude(Exists(recent))
        yield rows.filter(**{referred_to: None}) if referred_to else rows


def _sessions() -> QuerySet[Session]:
    """Of people who signed in and never came back."""
    return Session.objects.filter(expire_date__lt=timezone.now())


def _delete(rows: QuerySet[Any], deadline: float) -> bool:
    """Delete the rows, batch by batch; whether that was done before the deadline."""
    keys = list(rows.values_list("pk", flat=True))  # once: finding them takes longer than deleting some
    count = done = 0
    while done < len(keys) and time.monotonic() < deadline:
        with transaction.atomic():
            count += rows.filter(pk__in=keys[done : done + BATCH]).delete()[0]
        done += BATCH
        time.sleep(PAUSE)
    if count:
        log.info("%s %s were kept long enough and deleted.", count, rows.model._meta.verbose_name_plural)
    return done >= len(keys)
