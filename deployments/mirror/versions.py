"""Versions of the lists that the mirror has read, so that the next read skips what hasn't changed."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from deployments.client.client import Listing, ListVersion
from deployments.live.badges import NOUN
from deployments.models import HostingAccount, Operation

WHOLE_LIST = timedelta(hours=1)  # between two reads of the whole list, even if nothing seems to have changed
TOLERANCE = timedelta(seconds=5)  # an operation may end while a list is read


def known(account: HostingAccount, noun: type[Any], now: datetime) -> ListVersion:
    """Return the version of the list that the rows match; empty if the whole list has to be read.

    Rows may also have changed by the account's own operations. A change feed reports those as well. An unchanged entity
    tag or response only shows that the list didn't change.
    """
    stored = account.list_versions.get(NOUN[noun], {})
    read_at, confirmed_at = (stored.get(name) for name in ("read_at", "confirmed_at"))
    if stored.get("address") != account.address or not read_at or not confirmed_at:
        return ListVersion()
    if now - datetime.fromisoformat(read_at) > WHOLE_LIST:
        return ListVersion()
    version = ListVersion(**{name: stored.get(name, "") for name in ("etag", "cursor", "digest")})
    ended = Operation.objects.filter(account=account, finished_at__gt=datetime.fromisoformat(confirmed_at) - TOLERANCE)
    return ListVersion(cursor=version.cursor) if ended.exists() else version


def record(
    account: HostingAccount, noun: type[Any], listing: Listing[Any], version: ListVersion, started: datetime
) -> None:
    """Record the version that the rows now match, and that the server has confirmed them if it listed all."""
    with transaction.atomic():
        row = HostingAccount.objects.select_for_update().only("list_versions").get(pk=account.pk)
        stored = row.list_versions.get(NOUN[noun], {})
        is_whole = listing.removed is None and not listing.is_unchanged
        stored |= asdict(version) | {"address": account.address}
        stored["read_at"] = started.isoformat() if is_whole else stored.get("read_at")
        stored["confirmed_at"] = started.isoformat() if listing.is_complete else stored.get("confirmed_at")
        row.list_versions[NOUN[noun]] = stored
        HostingAccount.objects.filter(pk=account.pk).update(list_versions=row.list_versions)
    account.list_versions = row.list_versions
