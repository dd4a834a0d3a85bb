"""Actions on a hosting account: reload it for a form, and delete it with all data stored about it."""

from django.db import transaction
from django.db.models import QuerySet

from dashboard.access.models import Membership
from dashboard.audit.record import Result, note_details
from dashboard.http.request import Request
from deployments.accounts import availability
from deployments.models import (
    Asset,
    Cluster,
    HostingAccount,
    Image,
    Manifest,
    Operation,
    RegisteredModel,
    RegistryInfo,
    Service,
)
from deployments.models.operation import OPEN

DEPENDENT_CLASSES = (Service, Image, Manifest, RegisteredModel, Asset, Operation, RegistryInfo, Cluster)


def reload_account(account: HostingAccount) -> HostingAccount:
    """Return a new object for the row of `account`.

    A form writes into its instance while it validates, and the rest of the page must not show these values.
    """
    return HostingAccount.objects.get(pk=account.pk)


def open_operations(account: HostingAccount) -> QuerySet[Operation]:
    """Return the open operations of the account."""
    return Operation.objects.filter(account=account, state__in=OPEN)


def end_pause(request: Request, account: HostingAccount) -> bool:
    """Make workers call the paused server of the account now. Return False if it isn't paused."""
    until = account.next_attempt_at
    if not availability.end_pause(account):
        note_details(request, target=account.name, result=Result.REFUSED)
        return False
    note_details(request, target=account.name, before={"until": until and until.isoformat(), "error": account.error})
    return True


@transaction.atomic
def delete_account(request: Request, account: HostingAccount) -> bool:
    """Delete the account and all rows that depend on it. Return False if an operation is open.

    The server isn't contacted and keeps its resources.
    """
    if open_operations(account).exists():
        return False
    counts = {label: count for label, count in count_dependent_rows(account) if count}
    Membership.objects.filter(account_id=account.pk).delete()
    HostingAccount.objects.filter(pk=account.pk).delete()
    note_details(request, target=account.name, before=counts)
    return True


def count_dependent_rows(account: HostingAccount) -> list[tuple[str, int]]:
    """Return the number of rows that belong to the account, by plural noun of their class."""
    names = {RegisteredModel: "models", RegistryInfo: "registries"}
    return [
        (names.get(cls, f"{cls.__name__.lower()}s"), cls.objects.filter(account=account).count())
        for cls in DEPENDENT_CLASSES
    ]
