"""The MMS of each hosting account: what the workers last saw of it, and a call of our own where time allows."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.finding import Asked, Finding, failed, many, milliseconds, ok, unknown
from dashboard.ops.startup import bundled_account
from dashboard.templatetags.page import relative
from deployments.accounts.availability import client_for
from deployments.client import errors
from deployments.live.badges import STALE_AFTER
from deployments.models import HostingAccount
from deployments.timing import MAX_PAUSE_SECONDS

LISTS = ("services", "images", "manifests", "models")
MISSED = timedelta(seconds=60)  # past the time of the next try, and nobody tried
CALL = 3.0  # seconds for each step of a call
CALLS = 8  # at a time


def check(asked: Asked) -> Iterator[Finding]:
    database.must_exist()
    accounts = list(accounts_of(asked))
    if not accounts:
        yield ok("accounts", "There is no hosting account yet.")
    yield from (_last_seen(account) for account in accounts)
    if asked.thorough:
        yield from _called(accounts)


def accounts_of(asked: Asked) -> QuerySet[HostingAccount]:
    accounts = HostingAccount.objects.all() if asked.thorough else HostingAccount.objects.defer(*HostingAccount.SECRETS)
    return accounts if asked.accounts is None else accounts.filter(pk__in=asked.accounts)


def part(account: HostingAccount) -> str:
    return f"account {account.name}"


def _last_seen(account: HostingAccount) -> Finding:
    """What the database knows. Where nobody has asked for too long, nothing is known."""
    now = timezone.now()
    if account.token_refused:
        says = f"Its server refuses the token; nothing is sent or read.{_began(account.error_at)}"
        return failed(part(account), says, _new_token(account))
    if account.error and account.not_before and now - account.not_before > MISSED:
        says = f"Not asked again since {relative(account.not_before)}; before that: {account.error}"
        return unknown(part(account), says, "The worker asks: see “worker”.")
    if account.error:
        return failed(part(account), f"{account.error}{_began(account.error_at)}", _mend(account))
    if account.reached_at is None:
        return unknown(
            part(account), "Its server was never asked yet.", "The worker asks within 5 minutes: see “worker”."
        )
    # Services are read every minute at least; nothing that old is stale as long as somebody asks.
    if now - _newest(account) > STALE_AFTER["service"]:
        says = f"Its server was not asked since {relative(_newest(account))}; then it answered."
        return unknown(part(account), says, "The worker asks: see “worker”.")
    return ok(part(account), f"Its server answered {relative(_newest(account))}. Lists: {_ages(account)}.")


def _newest(account: HostingAccount) -> datetime:
    """When the server last answered. `reached_at` alone is written down now and then only."""
    read = (getattr(account, f"{noun}_seen_at") for noun in LISTS)
    return max(filter(None, [account.reached_at, *read]))


def _ages(account: HostingAccount) -> str:
    times = [(noun, getattr(account, f"{noun}_seen_at")) for noun in LISTS]
    return ", ".join(f"{noun} {relative(seen) if seen else 'never'}" for noun, seen in times)


def _began(when: datetime | None) -> str:
    return f" This began {relative(when)}." if when else ""


def _mend(account: HostingAccount) -> str:
    advice = f"Is the server at {account.base_url} running, and is that its address?"
    if account.not_before and account.not_before > timezone.now():
        advice += f" It is asked again {relative(account.not_before)}."
    return f"{advice} What pages show is stale, and operations wait; nothing is lost."


def _new_token(account: HostingAccount) -> str:
    if account.name == bundled_account.NAME:
        return "Restart the site: it makes this account a new token."
    command = f"`{settings.COMMAND} replace_token {account.name} --token-stdin < FILE`"
    if account.sign_in == HostingAccount.SignIn.ENTRA:
        return "Correct its credentials under Settings, Server; the test there says what is wrong."
    return (
        f"Get a new token from whoever runs the server, and enter it under Settings, Server; "
        f"or put it into a file, and {command}."
    )


# --- a call of our own --------------------------------------------------------------------------------------------


def _called(accounts: Iterable[HostingAccount]) -> Iterator[Finding]:
    with ThreadPoolExecutor(CALLS) as threads:
        yield from threads.map(_call, accounts)


def _call(account: HostingAccount) -> Finding:
    """Read the list of services. A server that asked to be left alone is."""
    if account.not_before and account.not_before > timezone.now() + timedelta(seconds=MAX_PAUSE_SECONDS):
        says = f"Not called now: its server asked to be left alone; it is asked again {relative(account.not_before)}."
        return unknown(part(account), says)
    started = time.monotonic()
    try:
        with client_for(account, read_timeout=CALL, deadline=CALL) as client:
            listing = client.list_services()
    except errors.MMSError as error:
        mend = _new_token if isinstance(error, errors.TokenRefusedError) else _mend
        return failed(part(account), f"Called just now: {error}", mend(account))
    took = milliseconds(time.monotonic() - started)
    return ok(part(account), f"Called just now: it listed {many(len(listing.items), 'service')} in {took}.")
