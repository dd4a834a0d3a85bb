"""A hosting account as workers use it: its client, and what each call teaches about the server."""

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from deployments.accounts import credentials
from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.client.transport import Credential
from deployments.live import events, redis
from deployments.live.transitions import conditional_update
from deployments.models import HostingAccount, Service
from deployments.timing import MAX_RETRY_AFTER_SECONDS, MIN_PAUSE_SECONDS, backoff

CONTACT_WRITE_INTERVAL = timedelta(seconds=10)  # how often "reached just now" is worth a write
STALENESS_INTERVAL_SECONDS = 15  # seconds; how often the ages of all services are worth telling (badges.TROUBLED)


def client_for(account: HostingAccount, credential: Credential | None = None, **limits: float) -> MMSClient:
    """The client of the account, with another credential than its own if one is given. `limits`: others than the usual
    ones, in seconds (`Transport`)."""
    return MMSClient(
        account.base_url,
        account.subscription,
        account.resource_group,
        account.hosting_account,
        token=credential or credentials.credential_for(account),
        api_version=account.api_version,
        **limits,
    )


def is_callable(*, refused_too: bool = False) -> Q:
    """Of accounts: those whose server may be called now; `refused_too`: also where it refused the token.

    `not_before` holds for everybody, also for a person who wants a refresh: what a server asks for with Retry-After is
    not ours to overrule, and such a wish outlives the pause (mirror.request_refresh). A refused token keeps everybody
    away but that person, who may know that it is good again.
    """
    rested = Q(not_before=None) | Q(not_before__lte=timezone.now())
    return rested if refused_too else rested & Q(token_refused=False)


def record_success(account: HostingAccount, client: MMSClient) -> None:
    """The server answered: whatever was wrong with it when this call began is over.

    A pause that another thread was asked for meanwhile goes on: the call was under way before.
    """
    record_contact(account, client)
    if account.is_failing:
        rested = Q(not_before=None) | Q(not_before__lte=client.called_at)
        _update(account, rested, error="", error_at=None, not_before=None, token_refused=False)
        events.publish_account(account.pk)
        publish_staleness(account)


def record_contact(account: HostingAccount, client: MMSClient) -> None:
    """The server answered this one call, whatever may be wrong with it otherwise."""
    now = timezone.now()
    news = account.is_failing or account.idempotent != client.idempotent
    if news or account.reached_at is None or now - account.reached_at > CONTACT_WRITE_INTERVAL:
        _update(account, reached_at=now, idempotent=client.idempotent)


def record_failure(account: HostingAccount, error: errors.MMSError) -> None:
    """The server is busy, out of reach, broken, or refuses the token: when to call it next, and what to tell people."""
    now, begins = timezone.now(), not account.error
    since = account.error_at or now
    if isinstance(error, errors.TokenRefusedError):
        _record_refusal(account, str(error), since)
    else:
        _record_pause(account, error, since, now)
    if begins:
        publish_staleness(account)


def _record_pause(account: HostingAccount, error: errors.MMSError, since: datetime, now: datetime) -> None:
    wait = backoff(since, now)
    if error.retry_after is not None:
        wait = timedelta(seconds=min(max(error.retry_after, MIN_PAUSE_SECONDS), MAX_RETRY_AFTER_SECONDS))
    # Of two threads that are told to wait, the longer pause holds.
    _update(account, Q(not_before=None) | Q(not_before__lt=now + wait), not_before=now + wait)
    _update(account, error=str(error), error_at=since)
    events.publish_account(account.pk)


def _record_refusal(account: HostingAccount, error: str, since: datetime) -> None:
    """Nobody calls until there is a new token, unless there is one by now: the refused one was another."""
    if HostingAccount.objects.get(pk=account.pk).credentials == account.credentials:
        _update(account, error=error, error_at=since, token_refused=True)
        events.publish_account(account.pk)


def publish_staleness(account: HostingAccount) -> None:
    """Tell the pages how old the news of the account's services is, and how long to believe it; not all the time.

    In between they ask by themselves, once the badge that they have holds no more.
    """
    if redis.acquire_lock(f"ages:{account.pk}", seconds=STALENESS_INTERVAL_SECONDS, fallback=True):
        services = Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None)
        events.publish(list(services.select_related("account")[: events.MAX_BADGES]))


def _update(account: HostingAccount, when: Q | None = None, **fields: object) -> None:
    conditional_update(account, HostingAccount.objects.filter(when or Q(), pk=account.pk), **fields)
