"""Clients of hosting accounts, and the availability of servers as observed by each call."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db.models import Q
from django.utils import timezone

from deployments.accounts import credentials, failures
from deployments.accounts.known_secrets import known_secrets
from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.client.transport import Credential, KnownSecrets
from deployments.live import events, redis
from deployments.live.transitions import conditional_update
from deployments.models import HostingAccount, Service
from deployments.timing import (
    MAX_RETRY_AFTER_SECONDS,
    MIN_PAUSE_SECONDS,
    MIN_REFUSAL_PAUSE_SECONDS,
    backoff,
    refusal_pause,
)

NO_FAILURE: dict[str, Any] = {
    "error": "",
    "error_at": None,
    "failed_request": "",
    "not_before": None,
    "token_refused": False,
    "refusal_retry_at": None,
}
CONTACT_WRITE_INTERVAL = timedelta(seconds=10)  # `reached_at` is written at most this often
STALENESS_INTERVAL_SECONDS = 15  # per account; see badges.STALE_AFTER_WHILE_FAILING


def client_for(
    account: HostingAccount,
    credential: Credential | None = None,
    known: KnownSecrets | None = None,
    **limits: float,
) -> MMSClient:
    """Return a client for the account.

    credential: replaces the account's own. known: the account's secrets, for threads that must not use the database.
    limits: `read_timeout` and `deadline` in seconds, as for Transport.
    """
    return MMSClient(
        account.base_url,
        account.subscription,
        account.resource_group,
        account.hosting_account,
        token=credential or credentials.credential_for(account),
        api_version=account.api_version,
        known_secrets=lambda: known or known_secrets(account),
        **limits,
    )


def is_callable(*, include_refused: bool = False) -> Q:
    """Return a filter for accounts whose server may be called now.

    include_refused: include servers that rejected the token.

    `not_before` also applies to a refresh that a user requests: it never overrides a server's Retry-After, and stays
    pending until the pause ends (mirror.refresh.request_refresh). A rejected token blocks all calls except such a
    refresh, since the user may know that it is valid again, and retry_refused.
    """
    pause_ended = Q(not_before=None) | Q(not_before__lte=timezone.now())
    return pause_ended if include_refused else pause_ended & Q(token_refused=False)


def record_success(account: HostingAccount, client: MMSClient, request: str = "") -> None:
    """Record a response, and clear failures of the server that were recorded before this call.

    A pause that another thread recorded during the call is preserved. request: a request that may fail while others
    succeed (record_failure), whose failure is cleared as well.
    """
    failures.clear(account, request)
    record_contact(account)
    if account.is_failing or (request and account.failed_request == request):
        pause_ended = Q(not_before=None) | Q(not_before__lte=client.called_at)
        _update(account, pause_ended, **NO_FAILURE)
        events.publish_account(account.pk)
        publish_staleness(account)


def record_contact(account: HostingAccount) -> None:
    """Record that the server responded, even if a later step fails."""
    now = timezone.now()
    if account.is_failing or account.reached_at is None or now - account.reached_at > CONTACT_WRITE_INTERVAL:
        _update(account, reached_at=now)


def record_failure(account: HostingAccount, error: errors.MMSError, request: str = "") -> None:
    """Record why a call failed, and when the server may be called again.

    request: names what was requested, such as "operation 7". Unless the connection itself or the credentials failed,
    the server is only paused after failures.MAX_DIFFERENT_FAILURES different requests failed in a row.
    """
    several_failed = failures.add(account, request, error)
    now, is_first = timezone.now(), not account.is_failing
    since = account.error_at if account.error_at and account.is_failing else now
    if isinstance(error, errors.TokenRefusedError):
        _record_refusal(account, str(error), since, now)
    elif account.is_failing or isinstance(error, errors.NotSentError) or several_failed:
        _record_pause(account, error, since, now)
    else:
        _record_failed_request(account, error, request, now)
        return
    if is_first:
        publish_staleness(account)


def _record_pause(account: HostingAccount, error: errors.MMSError, since: datetime, now: datetime) -> None:
    wait = backoff(since, now)
    if error.retry_after is not None:
        wait = timedelta(seconds=min(max(error.retry_after, MIN_PAUSE_SECONDS), MAX_RETRY_AFTER_SECONDS))
    # If two threads record a pause, the longer one wins.
    _update(account, Q(not_before=None) | Q(not_before__lt=now + wait), not_before=now + wait)
    _update(account, error=str(error), error_at=since, failed_request="")
    events.publish_account(account.pk)


def _record_failed_request(account: HostingAccount, error: errors.MMSError, request: str, now: datetime) -> None:
    """Record that one list can't be read. Operations record this themselves."""
    if not failures.is_list(request) or account.failed_request not in {"", request}:
        return
    if (account.error, account.failed_request) == (str(error), request):
        return
    since = account.error_at if account.failed_request == request else now
    of_server = Q(error="") | ~Q(failed_request="")
    if _update(account, of_server, error=str(error), error_at=since, failed_request=request):
        events.publish_account(account.pk)


def _record_refusal(account: HostingAccount, error: str, since: datetime, now: datetime) -> None:
    """Stop calling the server until its credentials change or are due to be tried again (retry_refused).

    Does nothing if they have already changed.
    """
    if HostingAccount.objects.get(pk=account.pk).credentials == account.credentials:
        retry_at = now + refusal_pause(since, now)
        _update(account, error=error, error_at=since, failed_request="", token_refused=True, refusal_retry_at=retry_at)
        events.publish_account(account.pk)


def refused_and_due() -> Q:
    """Return a filter for accounts whose rejected credentials are due to be retried."""
    now = timezone.now()
    pause_ended = Q(not_before=None) | Q(not_before__lte=now)
    return pause_ended & Q(token_refused=True) & (Q(refusal_retry_at=None) | Q(refusal_retry_at__lte=now))


def retry_refused(account_id: int) -> None:
    """Retry rejected credentials with one small read. If the server accepts them, send everything that is queued."""
    account = HostingAccount.objects.filter(refused_and_due(), pk=account_id).first()
    if account is None:
        return
    now = timezone.now()
    claimed = Q(token_refused=True, refusal_retry_at=account.refusal_retry_at)
    if not _update(account, claimed, refusal_retry_at=now + timedelta(seconds=MIN_REFUSAL_PAUSE_SECONDS)):
        return
    with client_for(account) as client:
        try:
            client.get_operation(str(uuid4()))  # an unknown one: the response is small, and a 404 if the token is valid
        except errors.RejectedError as error:
            if isinstance(error, errors.TokenRefusedError):
                record_failure(account, error)
                return
        except errors.MMSError as error:
            _record_pause(account, error, account.error_at or now, now)
            return
        record_success(account, client)
        account.release_queued()


def end_pause(account: HostingAccount) -> bool:
    """End the server's pause. Return False if it isn't paused. Its failure is shown until a call succeeds."""
    if account.next_attempt_at is None:
        return False
    _update(account, not_before=None, refusal_retry_at=timezone.now() if account.token_refused else None)
    account.release_queued()
    events.publish_account(account.pk)
    return True


def publish_staleness(account: HostingAccount) -> None:
    """Publish the badges of the account's services, at most every STALENESS_INTERVAL_SECONDS.

    In between, pages fetch badges that have expired.
    """
    if redis.acquire_lock(f"ages:{account.pk}", seconds=STALENESS_INTERVAL_SECONDS, fallback=True):
        services = Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None)
        events.publish(list(services.select_related("account")[: events.MAX_BADGES]))


def _update(account: HostingAccount, condition: Q | None = None, **fields: object) -> bool:
    return conditional_update(account, HostingAccount.objects.filter(condition or Q(), pk=account.pk), **fields)
