"""Evidence that a server executes a repeated request once, by kind of operation.

A server that declares idempotency for reads, or declared it long ago, may still execute the next write twice: during a
rolling upgrade, only some of its processes support request IDs. Only the response to the same kind of request counts.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from deployments.models import HostingAccount

BELIEVED_FOR = timedelta(hours=1)
WRITE_INTERVAL = timedelta(minutes=1)  # evidence is renewed at most this often


def record(account: HostingAccount, kind: str, declared: bool) -> None:
    """Record whether the response to a request of this kind declared idempotency."""
    if is_believed(account, kind, BELIEVED_FOR - WRITE_INTERVAL) if declared else kind not in account.idempotent_kinds:
        return
    with transaction.atomic():
        stored = HostingAccount.objects.select_for_update().get(pk=account.pk)
        stored.idempotent_kinds.pop(kind, None)
        if declared:
            until = timezone.now() + BELIEVED_FOR
            stored.idempotent_kinds[kind] = {"server": account.base_url, "until": until.isoformat()}
        stored.save(update_fields=["idempotent_kinds"])
    account.idempotent_kinds = stored.idempotent_kinds


def is_believed(account: HostingAccount, kind: str, remaining: timedelta = timedelta()) -> bool:
    """Return True if a request of this kind can be repeated without a second effect.

    remaining: for how much longer the evidence has to be valid.
    """
    evidence = account.idempotent_kinds.get(kind)
    if not evidence or evidence["server"] != account.base_url:
        return False
    return datetime.fromisoformat(evidence["until"]) > timezone.now() + remaining
