"""Doing a request once, however often it is sent: the header Idempotency-Key says that it is the same one."""

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from dashboard.api.errors import Problem, wrong
from dashboard.api.guards import ApiRequest
from dashboard.api.parsing import is_text
from dashboard.auth.models import SentOnce
from deployments.models import HostingAccount, Operation

HEADER = "Idempotency-Key"
KEY_MAX = 200  # characters
KEPT = timedelta(days=7)


def once(request: ApiRequest, account: HostingAccount, submit: Callable[[], Operation]) -> tuple[Operation, bool]:
    """The new operation, or the one that the same key has made before; and whether it is that one.

    The row of the key is written before anything else: of two requests at the same time one waits for the other, and
    meets it. What `submit` raises takes the row along: a refused request may be mended and sent with its key again.
    """
    key = request.headers.get(HEADER, "").strip()
    if not key:
        return submit(), False
    if len(key) > KEY_MAX or not key.isprintable() or not is_text(key):
        raise wrong(HEADER, f"Use at most {KEY_MAX} printable characters.")
    digest = sha256(json.dumps(json.loads(request.body), sort_keys=True).encode()).hexdigest()
    mine: dict[str, Any] = {"owner": request.user, "account_id": account.pk, "key": key}
    with transaction.atomic():
        made = {"body_digest": digest, "operation_id": UUID(int=0)}
        row, fresh = SentOnce.objects.get_or_create(**mine, defaults=made)
        if fresh:
            operation = submit()
            row.operation_id = operation.pk
            row.save(update_fields=["operation_id"])
            return operation, False
    if row.body_digest != digest:
        raise Problem(409, f"This {HEADER} was already used for a different request. Send a new one.")
    found = Operation.objects.filter(account=account, pk=row.operation_id).first()
    if found is None:
        raise Problem(409, f"The result of the request with this {HEADER} no longer exists.")
    return found, True


def prune() -> int:
    """Forget the keys of long ago; how many."""
    return SentOnce.objects.filter(sent_at__lt=timezone.now() - KEPT).delete()[0]
