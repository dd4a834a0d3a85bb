"""A hosting account as workers use it: its client, and what each call teaches about the server."""

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from deployments.accounts import credentials
from deployments.client import errors
from deployments.client.client import MMSClient
from deployments.client.transport import Credential
from deployments.live import events
from deployments.live import redis as volatile
from deployments.live.transitions import write
from deployments.models import HostingAccount, Service
from deployments.timing import LONGEST_RETRY_AFTER, SHORTEST_PAUSE, pause

REACHED_AGAIN = timedelta(seconds=10)  # how often "reached just now" is worth a write
TOLD_AGAIN = 15  # seconds; how often the ages of all services are worth telling (badges.TROUBLED)


def client_for(account: HostingAccount, credential: Credential | None = None, **limits: float) -> MMSClient:
    """The client of the account, with another credential than its own if one is given. `limits`: others than the usual
    ones, in seconds (`Transport`)."""
    return MMSClient(
        account.base_url,
        account.subscription,
        account.resource_group,
        account.hosting_account,
        token=credential or credentials.of(account),
        api_version=account.api_version,
        **limits,
    )


def callable_now(*, refused_too: bool = False) -> Q:
    """Of accounts: those whose server may be called now; `refused_too`: also where it refused the token.

    `not_before` holds for everybody, also for a person who wants a refresh: what a server asks for with Retry-After is
    not ours to overrule, and such a wish outlives the pause (mirror.request_refresh). A refused token keeps everybody
    away but that person, who may know that it is good again.
    """
    rested = Q(not_before=None) | Q(not_before__lte=timezone.now())
    return rested if refused_too else rested & Q(token_refused=False)


def note_answer(account: HostingAccount, client: MMSClient) -> None:
    """The server answered: whatever was wrong with it when this call began is over.

    A pause that another thread was asked for meanwhile goes on: the call was under way before.
    """
    note_reached(account, client)
    if account.troubled:
        rested = Q(not_before=None) | Q(not_before__lte=client.called_at)
        _write(account, rested, error="", error_at=None, not_before=None, token_refused=False)
        events.publish_account(account.pk)
        tell_ages(account)


def note_reached(account: HostingAccount, client: MMSClient) -> None:
    """The server answered this one call, whatever may be wrong with it otherwise."""
    now = timezone.now()
    news = account.troubled or account.idempotent != client.idempotent
    if news or account.reached_at is None or now - account.reached_at > REACHED_AGAIN:
        _write(account, reached_at=now, idempotent=client.idempotent)


def note_trouble(account: HostingAccount, error: errors.MMSError) -> None:
    """The server is busy, out of reach, broken, or refuses the token: when to call it next, and what to tell people."""
    now, begins = timezone.now(), not account.error
    since = account.error_at or now
    if isinstance(error, errors.TokenRefused):
        _note_refusal(account, str(error), since)
    else:
        _note_pause(account, error, since, now)
    if begins:
        tell_ages(account)


def _note_pause(account: HostingAccount, error: errors.MMSError, since: datetime, now: datetime) -> None:
    wait = pause(since, now)
    if error.retry_after is not None:
        wait = timedelta(seconds=min(max(error.retry_after, SHORTEST_PAUSE), LONGEST_RETRY_AFTER))
    # Of two threads that are told to wait, the longer pause holds.
    _write(account, Q(not_before=None) | Q(not_before__lt=now + wait), not_before=now + wait)
    _write(account, error=str(error), error_at=since)
    events.publish_account(account.pk)


def _note_refusal(account: HostingAccount, error: str, since: datetime) -> None:
    """Nobody calls until there is a new token, unless there is one by now: the refused one was another."""
    if HostingAccount.objects.get(pk=account.pk).credentials == account.credentials:
        _write(account, error=error, error_at=since, token_refused=True)
        events.publish_account(account.pk)


def tell_ages(account: HostingAccount) -> None:
    """Tell the pages how old the news of the account's services is, and how long to believe it; not all the time.

    In between they ask by themselves, once the badge that they have holds no more.
    """
    if volatile.claim(f"ages:{account.pk}", seconds=TOLD_AGAIN, fallback=True):
        services = Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None)
        events.publish(list(services.select_related("account")[: events.MOST_BADGES]))


def _write(account: HostingAccount, when: Q | None = None, **fields: object) -> None:
    write(account, HostingAccount.objects.filter(when or Q(), pk=account.pk), **fields)
