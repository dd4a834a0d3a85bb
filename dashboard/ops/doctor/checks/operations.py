"""What people asked for and what does not go on by itself."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone

from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.checks.servers import accounts_of, part
from dashboard.ops.doctor.finding import Asked, Finding, failed, many, ok, warning
from deployments.live.badges import UNCLAIMED_AFTER
from deployments.models import HostingAccount, Operation
from deployments.models.operation import NEEDS_DECISION, OPEN, State

UNDECIDED = Q(state=State.UNCERTAIN, error_code=NEEDS_DECISION)


def check(asked: Asked) -> Iterator[Finding]:
    database.must_exist()
    open_ones = Operation.objects.filter(state__in=sorted(OPEN), account__in=accounts_of(asked).values("pk"))
    untaken = Q(
        state=State.QUEUED,
        next_poll_at__lt=timezone.now() - UNCLAIMED_AFTER,
        account__error="",
        account__token_refused=False,
    )
    counts = open_ones.values("account").annotate(
        all=Count("pk"),
        undecided=Count("pk", filter=UNDECIDED),
        stopped=Count("pk", filter=Q(next_poll_at=None) & ~Q(mms_operation_id="") & ~UNDECIDED),
        untaken=Count("pk", filter=untaken),
    )
    found = {row["account"]: row for row in counts}
    for account in accounts_of(asked).filter(pk__in=found):
        yield from _stuck(account, found[account.pk])
    yield ok("operations", f"{many(sum(row['all'] for row in found.values()), 'operation')} in flight.")


def _stuck(account: HostingAccount, counts: Mapping[str, Any]) -> Iterator[Finding]:
    page = f"{reverse('list_operations', args=[account.name])}?state="
    if counts["untaken"]:
        waiting = many(counts["untaken"], "operation")
        says = f"{waiting} queued for more than {UNCLAIMED_AFTER.seconds} s that no worker took."
        yield failed(part(account), says, "Nothing is lost; they go on once the worker works.", f"{page}open")
    if counts["undecided"]:
        says = f"{many(counts['undecided'], 'operation')} may or may not have taken effect, and a person has to decide."
        yield warning(part(account), says, "Open each and choose.", f"{page}uncertain")
    if counts["stopped"]:
        says = f"{many(counts['stopped'], 'operation')} did not end for so long that the server is no longer asked."
        yield warning(part(account), says, "Open each and choose “Ask again”, or cancel it.", f"{page}open")
