"""Idempotent requests: a request sent again with the same Idempotency-Key has no further effect."""

import json
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from dashboard.api.errors import ApiError, invalid_field
from dashboard.api.guards import ApiRequest
from dashboard.api.parsing import is_encodable
from dashboard.auth.models import SentOnce
from deployments.models import HostingAccount, Operation

HEADER = "Idempotency-Key"
MAX_KEY_CHARS = 200
RETENTION = timedelta(days=7)


def submit_once(
    request: ApiRequest, account: HostingAccount, submit: Callable[[], Operation]
) -> tuple[Operation, bool]:
    """Return the operation that `submit` creates, or that the same key created before; and True if it is repeated.

    The row of the key is written first, so that of two requests at the same time, the second waits for the first and
    finds its row. If `submit` raises, the row is rolled back, and a corrected request can use the key again. Raise
    ApiError if the key is invalid or was used for another request.
    """
    key = request.headers.get(HEADER, "").strip()
    if not key:
        return submit(), False
    if len(key) > MAX_KEY_CHARS or not key.isprintable() or not is_encodable(key):
        raise invalid_field(HEADER, f"Use at most {MAX_KEY_CHARS} printable characters.")
    digest = sha256(json.dumps(json.loads(request.body), sort_keys=True).encode()).hexdigest()
    identity: dict[str, Any] = {"owner": request.user, "account_id": account.pk, "key": key}
    with transaction.atomic():
        defaults = {"body_digest": digest, "operation_id": UUID(int=0)}
        row, is_new = SentOnce.objects.get_or_create(**identity, defaults=defaults)
        if is_new:
            operation = submit()
            row.operation_id = operation.pk
            row.save(update_fields=["operation_id"])
            return operation, False
    if row.body_digest != digest:
        raise ApiError(409, f"This {HEADER} was already used for a different request. Send a new one.")
    previous = Operation.objects.filter(account=account, pk=row.operation_id).first()
    if previous is None:
        raise ApiError(409, f"The result of the request with this {HEADER} no longer exists.")
    return previous, True


def prune() -> int:
    """Delete expired keys. Return how many."""
    return SentOnce.objects.filter(sent_at__lt=timezone.now() - RETENTION).delete()[0]
