"""A hosting account as workers use it: its client, and what each call teaches about the server."""

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from deployments import errors
from deployments.client import MMSClient
from deployments.models import HostingAccount
from deployments.schedule import LONGEST_RETRY_AFTER, pause

REACHED_AGAIN = timedelta(seconds=10)  # how often "reached just now" is worth a write


def client_for(account: HostingAccount, **limits: float) -> MMSClient:
    """The client of the account. `limits`: others than the usual ones, in seconds (`Transport`)."""
    return MMSClient(
        account.base_url,
        account.subscription,
        account.resource_group,
        account.hosting_account,
        token=account.token or "",
        api_version=account.api_version,
        **limits,
    )


def callable_now() -> Q:
    """Of accounts: those whose server may be called now."""
    now = timezone.now()
    return Q(token_refused=False) & (Q(not_before=None) | Q(not_before__lte=now))


def note_answer(account: HostingAccount, client: MMSClient) -> None:
    """The server answered: whatever was wrong with it is over."""
    now = timezone.now()
    changed = bool(account.error) or account.token_refused or account.idempotent != client.idempotent
    if changed or account.reached_at is None or now - account.reached_at > REACHED_AGAIN:
        _write(
            account,
            reached_at=now,
            error="",
            error_at=None,
            not_before=None,
            token_refused=False,
            idempotent=client.idempotent,
        )


def note_trouble(account: HostingAccount, error: errors.MMSError) -> None:
    """The server is busy, out of reach, broken, or refuses the token: when to call it next, and what to tell people."""
    now = timezone.now()
    since = account.error_at or now
    wait = pause(since, now)
    if error.retry_after is not None:
        wait = timedelta(seconds=min(error.retry_after, LONGEST_RETRY_AFTER))
    refused = isinstance(error, errors.TokenRefused)
    _write(account, error=str(error), error_at=since, not_before=now + wait, token_refused=refused)


def _write(account: HostingAccount, **fields: object) -> None:
    HostingAccount.objects.filter(pk=account.pk).update(**fields)
    for name, value in fields.items():
        setattr(account, name, value)
