"""The mirror: rows with the contents of each server's lists, so that pages never wait for a server.

Each list is read regularly, more often while users view it, and rows are inserted, updated and marked as vanished to
match. What hasn't changed is skipped: by the server's change feed or entity tags, or because the response is the same.
A resource that one of our operations is creating gets no second row: the operation's row receives its id. The number of
queries doesn't depend on the number of rows.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Q
from django.utils import timezone

from deployments.accounts import failures
from deployments.accounts.availability import (
    client_for,
    is_callable,
    publish_staleness,
    record_contact,
    record_failure,
    record_success,
)
from deployments.accounts.call_pool import CALL_POOL
from deployments.client import errors
from deployments.client.client import Listing, ListVersion, MMSClient
from deployments.live import events, redis
from deployments.live.badges import NOUN, stale_after
from deployments.live.events import INTEREST_SECONDS, MAX_BADGES
from deployments.live.transitions import conditional_update
from deployments.mirror import memory, upsert, versions
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN
from deployments.operations import queue
from deployments.operations.dispatch import max_calls
from deployments.resources import links, scoring_keys
from deployments.timing import TURN_SECONDS

MAX_KEYS_PER_REFRESH = 20
LOCK_SECONDS = 90  # longer than reading and storing a list

# Ordered so that each class only links to rows of earlier classes.
LISTS: dict[type[Any], Callable[[MMSClient, ListVersion], Listing[Any]]] = {
    RegisteredModel: MMSClient.list_models,
    Manifest: MMSClient.list_manifests,
    Image: MMSClient.list_images,
    Service: MMSClient.list_services,
}
ENDS_REFRESH = (errors.NotSentError, errors.TokenRefusedError)
WATCHED = {Service: timedelta(seconds=4)}  # while a user views the account or an operation is open
WATCHED_LIST = timedelta(seconds=29)
UNWATCHED = {Service: timedelta(seconds=60)}
UNWATCHED_LIST = timedelta(minutes=5)


# --- for pages ----------------------------------------------------------------------------------------------------


def record_interest(account_id: int) -> None:
    """Record that a user views the account's pages. Never fails and never calls the server."""
    events.record_interest(f"account:{account_id}")


def request_refresh(account: HostingAccount) -> None:
    """Have workers read all lists of the account soon, or when a pause of its server ends."""
    pause = (account.not_before - timezone.now()).total_seconds() if account.not_before else 0.0
    events.record_interest(f"account:{account.pk}")
    events.record_interest(f"refresh:{account.pk}", life=INTEREST_SECONDS + max(0.0, pause))
    queue.hint_refresh()


# --- for workers --------------------------------------------------------------------------------------------------


def refresh_due() -> "list[Future[None]]":
    """Start reading all lists that are due, one thread per account. Return the futures."""
    watched = {int(pk) for pk in events.current_interests("account:")} | _in_flight()
    forced = {int(pk) for pk in events.current_interests("refresh:")}
    ready = is_callable() | is_callable(include_refused=True) & Q(pk__in=forced)
    started = []
    for account in HostingAccount.objects.filter(ready).annotate(ended=Max("operations__finished_at")):
        nouns = list(LISTS) if account.pk in forced else _due_lists(account, account.pk in watched)
        whole = account.pk in forced
        if nouns and (future := CALL_POOL.submit(account.pk, refresh, nouns, whole, limit=max_calls(account))):
            events.clear_interest(f"refresh:{account.pk}")
            started.append(future)
    return started


def _in_flight() -> set[int]:
    return set(Operation.objects.filter(state__in=OPEN).values_list("account_id", flat=True))


def refresh(account_id: int, nouns: Iterable[type[Any]], whole: bool = False) -> None:
    """Read these lists of the account, except those that another worker is reading. A failed list changes no rows.

    whole: read each list completely, even if the server supports sending only the changes.

    A list that can't be read doesn't prevent reading the others, but an unreachable server does.
    """
    account = HostingAccount.objects.get(pk=account_id)
    with memory.given_back(), client_for(account) as client:
        stale = _services_are_stale(account)
        read = _read_lists(account, nouns, client, whole)
        if Service in read:
            if stale:
                publish_staleness(account)
            _fetch_keys(account, client)


def _services_are_stale(account: HostingAccount) -> bool:
    """Return True if pages show the account's services as stale."""
    seen = account.services_seen_at
    return seen is not None and timezone.now() - seen > stale_after(account, NOUN[Service])


def _read_lists(account: HostingAccount, nouns: Iterable[type[Any]], client: MMSClient, whole: bool) -> set[type[Any]]:
    """Read the lists that can be read, those that failed before last. Return them."""
    read: set[type[Any]] = set()
    failed: list[tuple[errors.MMSError, str]] = []
    was_failing = account.is_failing
    for noun in sorted(nouns, key=lambda noun: failures.is_failing(account, _request(noun))):
        try:
            if _lock_and_refresh(account, noun, client, whole):
                read.add(noun)
                record_success(account, client, _request(noun))
        except errors.MMSError as error:
            reason = f"Couldn't read the {_request(noun)}. {error}"
            _record_list_error(account, noun, reason)
            failed.append((type(error)(reason, error.failure, error.retry_after), _request(noun)))
            if not was_failing:
                record_failure(account, *failed.pop())
            hangs = [late for late, _ in failed if isinstance(late, errors.NoResponseError)]
            if isinstance(error, ENDS_REFRESH) or account.next_attempt_at or len(hangs) > 1:
                break
    # Recorded last: of a server that was failing as a whole, one list may still fail while others were read.
    for named, request in failed:
        record_failure(account, named, request)
    return read


def _request(noun: type[Any]) -> str:
    return failures.list_request(NOUN[noun])


def _record_list_error(account: HostingAccount, noun: type[Any], reason: str) -> None:
    """Record why the list couldn't be read, and notify pages if that is new."""
    is_first = not account.list_error(NOUN[noun])
    same = HostingAccount.objects.filter(pk=account.pk)
    conditional_update(account, same.exclude(**{_error_field(noun): reason}), **{_error_field(noun): reason})
    if is_first and noun is Service:
        publish_staleness(account)


def _lock_and_refresh(account: HostingAccount, noun: type[Any], client: MMSClient, whole: bool = False) -> bool:
    name = f"mirror:{account.pk}:{NOUN[noun]}"
    token = redis.acquire_lock(name, seconds=LOCK_SECONDS, fallback=True)
    if not token:
        return False
    try:
        return _refresh_list(account, noun, client, whole)
    finally:
        redis.release_lock(name, token)


def _due_lists(account: Any, watched: bool) -> list[type[Any]]:
    """Return the lists that are older than their schedule or were read before the last operation ended."""
    due, now = [], timezone.now()
    for noun in LISTS:
        every = WATCHED.get(noun, WATCHED_LIST) if watched else UNWATCHED.get(noun, UNWATCHED_LIST)
        if failures.is_paused(account, _request(noun)):
            continue
        seen: datetime | None = getattr(account, _seen_at_field(noun))
        if seen is None or now - seen > every or (account.ended and account.ended > seen):
            due.append(noun)
    return due


def _seen_at_field(noun: type[Any]) -> str:
    return f"{NOUN[noun]}s_seen_at"


def _error_field(noun: type[Any]) -> str:
    return f"{NOUN[noun]}s_error"


def _refresh_list(account: HostingAccount, noun: type[Any], client: MMSClient, whole: bool = False) -> bool:
    """Read and store the list. Return False if the server has none."""
    started = timezone.now()
    values: dict[str, Any] = {_seen_at_field(noun): started, _error_field(noun): ""}
    values |= {"lists_images": True} if noun is Image else {}
    known = ListVersion() if whole else versions.known(account, noun, started)
    try:
        listing = LISTS[noun](client, known)
    except (errors.NotFoundError, errors.NotSupportedError):
        if noun is not Image:  # the reference has no URL for a list of images, but mentions one
            raise
        listing = Listing([], is_complete=False)
        values["lists_images"] = False
    record_contact(account)
    changes = upsert.ChangeSummary() if listing.is_unchanged else upsert.store(account, noun, listing, started)
    # A position in the feed remains valid; an older tag or digest could match again, with other rows.
    unsettled = ListVersion(cursor=known.cursor if listing.removed is not None else "")
    versions.record(account, noun, listing, listing.version if changes.is_settled else unsettled, started)
    conditional_update(account, HostingAccount.objects.filter(pk=account.pk), **values)
    # A manifest may be listed before its models are, and isn't read again then.
    if (noun is Manifest and not listing.is_unchanged) or (noun is RegisteredModel and changes.membership_changed):
        links.link_models(account)
    _publish(account, noun, changes)
    return listing.is_complete or bool(listing.items)


def _fetch_keys(account: HostingAccount, client: MMSClient) -> None:
    """Fetch missing scoring keys of services. Servers without keys are queried every five minutes."""
    without_key = Service.objects.filter(account=account, scoring_key=None, vanished_at=None).exclude(scoring_uri="")
    name = f"no-keys:{account.pk}"
    if not without_key.exists() or not (token := redis.acquire_lock(name, seconds=300, fallback=True)):
        return
    until = time.monotonic() + TURN_SECONDS
    for service in without_key[:MAX_KEYS_PER_REFRESH]:
        if not scoring_keys.fetch(service, client):
            return
        if time.monotonic() > until:
            break  # the next refresh fetches the rest
    redis.release_lock(name, token)


def _publish(account: HostingAccount, noun: type[Any], changes: upsert.ChangeSummary) -> None:
    """Publish the badges of changed rows; of more than MAX_BADGES only one, with a refresh of the list."""
    found = noun.objects.filter(account=account, mms_id__in=changes.changed[:MAX_BADGES]).select_related("account")
    badges = found if len(changes.changed) <= MAX_BADGES else found[:1]
    events.publish(list(badges), *([f"{NOUN[noun]}s"] if changes.membership_changed else []))
