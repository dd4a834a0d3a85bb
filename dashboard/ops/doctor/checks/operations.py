"""Operations that can't continue on their own."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone

from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.checks.servers import accounts_in, part_name
from dashboard.ops.doctor.finding import CheckContext, Finding, failed, ok, pluralize, warning
from deployments.live import redis
from deployments.live.badges import UNCLAIMED_AFTER
from deployments.models import HostingAccount, Operation
from deployments.models.operation import NEEDS_DECISION, OPEN, State

UNDECIDED = Q(state=State.UNCERTAIN, error_code=NEEDS_DECISION)


def check(context: CheckContext) -> Iterator[Finding]:
    """Count the operations of each account that need a worker or a decision."""
    database.require_database()
    open_operations = Operation.objects.filter(state__in=sorted(OPEN), account__in=accounts_in(context).values("pk"))
    untaken = Q(
        state=State.QUEUED,
        next_poll_at__lt=timezone.now() - UNCLAIMED_AFTER,
        account__error="",
        account__token_refused=False,
    )
    counts = open_operations.values("account").annotate(
        all=Count("pk"),
        undecided=Count("pk", filter=UNDECIDED),
        stopped=Count("pk", filter=Q(next_poll_at=None) & ~Q(mms_operation_id="") & ~UNDECIDED),
        untaken=Count("pk", filter=untaken),
    )
    by_account = {row["account"]: row for row in counts}
    for account in accounts_in(context).filter(pk__in=by_account):
        yield from _check_account(account, by_account[account.pk])
    yield ok("operations", f"{pluralize(sum(row['all'] for row in by_account.values()), 'operation')} in progress.")


def _check_account(account: HostingAccount, counts: Mapping[str, Any]) -> Iterator[Finding]:
    page = f"{reverse('list_operations', args=[account.name])}?state="
    part = part_name(account)
    if counts["untaken"]:
        waiting = pluralize(counts["untaken"], "operation")
        message = f"{waiting} queued for more than {UNCLAIMED_AFTER.seconds} s without a worker."
        advice = 'Check the worker: see "worker". Nothing is lost; queued operations continue when it works again.'
        if outage := redis.outage():
            message = f"{waiting} queued for more than {UNCLAIMED_AFTER.seconds} s, because {outage}."
            advice = 'See "Redis". Nothing is lost; queued operations continue when it works again.'
        yield failed(part, message, advice, f"{page}open")
    if counts["undecided"]:
        message = f"{pluralize(counts['undecided'], 'operation')} with an unknown result, which a user has to resolve."
        yield warning(part, message, "Open each one and send it again or mark it as failed.", f"{page}uncertain")
    if counts["stopped"]:
        message = f"{pluralize(counts['stopped'], 'operation')} unfinished for so long that polling the server stopped."
        yield warning(part, message, 'Open each one and choose "Check again" or cancel it.', f"{page}open")
