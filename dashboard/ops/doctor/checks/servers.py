"""The MMS of each hosting account: its state as the workers last recorded it, and in a thorough check a call."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from dashboard.catalog.durations import relative_time
from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.finding import CheckContext, Finding, failed, milliseconds, ok, pluralize, unknown
from dashboard.ops.startup import bundled_account
from deployments.accounts.availability import client_for
from deployments.accounts.known_secrets import known_secrets
from deployments.client import errors
from deployments.client.transport import KnownSecrets
from deployments.live.badges import STALE_AFTER
from deployments.models import HostingAccount
from deployments.timing import MAX_PAUSE_SECONDS

LISTS = ("services", "images", "manifests", "models")
MISSED_AFTER = timedelta(seconds=60)  # a retry this overdue means that no worker is running
TIMEOUT_SECONDS = 3.0  # for connecting, and for each read
MAX_CONCURRENT_CALLS = 8
WORKER_ADVICE = 'Workers contact the servers. See "worker".'


def check(context: CheckContext) -> Iterator[Finding]:
    """Check the servers of the accounts. A thorough check also calls them."""
    database.require_database()
    accounts = list(accounts_in(context))
    if not accounts:
        yield ok("accounts", "There are no hosting accounts yet.")
    yield from (_check_recorded_state(account) for account in accounts)
    if context.thorough:
        yield from _call_servers(accounts)


def accounts_in(context: CheckContext) -> QuerySet[HostingAccount]:
    """Return the accounts that may be named. Their secrets are loaded only if the servers will be called."""
    accounts = (
        HostingAccount.objects.all() if context.thorough else HostingAccount.objects.defer(*HostingAccount.SECRETS)
    )
    return accounts if context.accounts is None else accounts.filter(pk__in=context.accounts)


def part_name(account: HostingAccount) -> str:
    """Return the part under which findings about the account are listed."""
    return f"account {account.name}"


def _check_recorded_state(account: HostingAccount) -> Finding:
    """Return the state from the database. It is unknown if no worker has contacted the server for too long."""
    now = timezone.now()
    part = part_name(account)
    if account.token_refused:
        message = f"The server rejects the token, so nothing is sent or read.{_since(account.error_at)}"
        return failed(part, message, _token_advice(account))
    if account.error and account.not_before and now - account.not_before > MISSED_AFTER:
        message = f"The retry due {relative_time(account.not_before)} is missing. Last error: {account.error}"
        return unknown(part, message, WORKER_ADVICE)
    if account.error:
        return failed(part, f"{account.error}{_since(account.error_at)}", _error_advice(account))
    if account.reached_at is None:
        return unknown(part, "The server was never contacted. This takes up to 5 minutes.", WORKER_ADVICE)
    # Services are read at least every minute, so a list this old means that no worker is running.
    if now - _last_response(account) > STALE_AFTER["service"]:
        message = f"The server last responded {relative_time(_last_response(account))} and was not contacted since."
        return unknown(part, message, WORKER_ADVICE)
    return ok(
        part, f"The server last responded {relative_time(_last_response(account))}. Lists: {_list_ages(account)}."
    )


def _last_response(account: HostingAccount) -> datetime:
    """Return when the server last responded. `reached_at` alone isn't updated at every call."""
    times: list[datetime | None] = [account.reached_at, *(getattr(account, f"{noun}_seen_at") for noun in LISTS)]
    return max(filter(None, times))


def _list_ages(account: HostingAccount) -> str:
    times = [(noun, getattr(account, f"{noun}_seen_at")) for noun in LISTS]
    return ", ".join(f"{noun} {relative_time(seen) if seen else 'never'}" for noun, seen in times)


def _since(when: datetime | None) -> str:
    return f" This began {relative_time(when)}." if when else ""


def _error_advice(account: HostingAccount) -> str:
    advice = f"Check that the server at {account.base_url} is running and that the address is right."
    if account.not_before and account.not_before > timezone.now():
        advice += f" The next attempt is {relative_time(account.not_before)}."
    return f"{advice} Until then, pages show the last known data and operations wait. Nothing is lost."


def _token_advice(account: HostingAccount) -> str:
    if account.name == bundled_account.NAME:
        return "Restart the site: it creates a new token for this account."
    if account.sign_in == HostingAccount.SignIn.ENTRA:
        return "Correct the credentials under Settings, Server. The connection test there shows what is wrong."
    command = f"`{settings.COMMAND} replace_token {account.name} --token-stdin < FILE`"
    return (
        "Get a new token from the operator of the server and enter it under Settings, Server. "
        f"Or put it into a file and run {command}."
    )


# --- calls --------------------------------------------------------------------------------------------------------


def _call_servers(accounts: Iterable[HostingAccount]) -> Iterator[Finding]:
    with ThreadPoolExecutor(MAX_CONCURRENT_CALLS) as threads:
        yield from threads.map(_call_server, accounts, map(known_secrets, accounts))


def _call_server(account: HostingAccount, known: KnownSecrets) -> Finding:
    """List the services, unless the server requested a longer pause (Retry-After)."""
    if account.not_before and account.not_before > timezone.now() + timedelta(seconds=MAX_PAUSE_SECONDS):
        message = f"Not called: the server requested a pause. The next attempt is {relative_time(account.not_before)}."
        return unknown(part_name(account), message)
    started = time.monotonic()
    try:
        with client_for(account, known=known, read_timeout=TIMEOUT_SECONDS, deadline=TIMEOUT_SECONDS) as client:
            listing = client.list_services()
    except errors.MMSError as error:
        advice = _token_advice(account) if isinstance(error, errors.TokenRefusedError) else _error_advice(account)
        return failed(part_name(account), f"Test call failed: {error}", advice)
    elapsed = milliseconds(time.monotonic() - started)
    return ok(part_name(account), f"Test call: listed {pluralize(len(listing.items), 'service')} in {elapsed}.")
