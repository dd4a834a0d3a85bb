"""Clients of hosting accounts, and the availability of servers as observed by each call."""

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from deployments.accounts import credentials
from deployments.accounts.known_secrets import known_secrets
from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.client.transport import Credential, KnownSecrets
from deployments.live import events, redis
from deployments.live.transitions import conditional_update
from deployments.models import HostingAccount, Service
from deployments.timing import MAX_RETRY_AFTER_SECONDS, MIN_PAUSE_SECONDS, backoff

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
    refresh, since the user may know that it is valid again.
    """
    pause_ended = Q(not_before=None) | Q(not_before__lte=timezone.now())
    return pause_ended if include_refused else pause_ended & Q(token_refused=False)


def record_success(account: HostingAccount, client: MMSClient) -> None:
    """Record a response, and clear failures recorded before this call.

    A pause that another thread recorded during the call is preserved.
    """
    record_contact(account, client)
    if account.is_failing:
        pause_ended = Q(not_before=None) | Q(not_before__lte=client.called_at)
        _update(account, pause_ended, error="", error_at=None, not_before=None, token_refused=False)
        events.publish_account(account.pk)
        publish_staleness(account)


def record_contact(account: HostingAccount, client: MMSClient) -> None:
    """Record that the server responded to this call, even if a later step fails."""
    now = timezone.now()
    has_changed = account.is_failing or account.idempotent != client.idempotent
    if has_changed or account.reached_at is None or now - account.reached_at > CONTACT_WRITE_INTERVAL:
        _update(account, reached_at=now, idempotent=client.idempotent)


def record_failure(account: HostingAccount, error: errors.MMSError) -> None:
    """Record why a call failed, and when the server may be called again."""
    now, is_first = timezone.now(), not account.error
    since = account.error_at or now
    if isinstance(error, errors.TokenRefusedError):
        _record_refusal(account, str(error), since)
    else:
        _record_pause(account, error, since, now)
    if is_first:
        publish_staleness(account)


def _record_pause(account: HostingAccount, error: errors.MMSError, since: datetime, now: datetime) -> None:
    wait = backoff(since, now)
    if error.retry_after is not None:
        wait = timedelta(seconds=min(max(error.retry_after, MIN_PAUSE_SECONDS), MAX_RETRY_AFTER_SECONDS))
    # If two threads record a pause, the longer one wins.
    _update(account, Q(not_before=None) | Q(not_before__lt=now + wait), not_before=now + wait)
    _update(account, error=str(error), error_at=since)
    events.publish_account(account.pk)


def _record_refusal(account: HostingAccount, error: str, since: datetime) -> None:
    """Stop calling the server until its credentials change. Does nothing if they have already changed."""
    if HostingAccount.objects.get(pk=account.pk).credentials == account.credentials:
        _update(account, error=error, error_at=since, token_refused=True)
        events.publish_account(account.pk)


def publish_staleness(account: HostingAccount) -> None:
    """Publish the badges of the account's services, at most every STALENESS_INTERVAL_SECONDS.

    In between, pages fetch badges that have expired.
    """
    if redis.acquire_lock(f"ages:{account.pk}", seconds=STALENESS_INTERVAL_SECONDS, fallback=True):
        services = Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None)
        events.publish(list(services.select_related("account")[: events.MAX_BADGES]))


def _update(account: HostingAccount, condition: Q | None = None, **fields: object) -> None:
    conditional_update(account, HostingAccount.objects.filter(condition or Q(), pk=account.pk), **fields)
