"""Accounts with Entra ID: tokens are fetched, cached in memory, and renewed in time and after a 401."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.accounts import credentials
from deployments.accounts.availability import client_for
from deployments.accounts.credentials import EntraClient, EntraCredential
from deployments.client import errors
from deployments.mirror import refresh
from deployments.models import HostingAccount, RegisteredModel
from deployments.models.operation import State
from tests.doubles import mms as faults
from tests.doubles.authority import CLIENT_ID, SCOPE, SECRET, TENANT, Authority, said
from tests.doubles.mms import MMS
from tests.support.lifecycle import account_at, register, turn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority() as running:
        yield running


@pytest.fixture
def account(mms: MMS, authority: Authority, live_redis: Any) -> HostingAccount:
    """Return an account whose server accepts only the authority's newest token."""
    authority.given_to = lambda token: setattr(mms, "token", token)
    account = account_at(mms.url)
    entra = {"authority": authority.url, "tenant": TENANT, "client_id": CLIENT_ID, "scope": SCOPE}
    for name, value in entra.items():
        setattr(account, name, value)
    account.sign_in, account.token, account.client_secret = HostingAccount.SignIn.ENTRA, None, SECRET
    account.save()
    return account


def forever() -> float:
    return time.monotonic() + 60


def read_models(account: HostingAccount) -> HostingAccount:
    refresh.refresh(account.pk, [RegisteredModel])
    account.refresh_from_db()
    return account


def test_a_token_is_fetched_once_and_used_for_every_call(
    account: HostingAccount, mms: MMS, authority: Authority
) -> None:
    for _ in range(2):
        with client_for(account) as client:
            client.list_models()
            client.list_images()
    assert authority.given == ["token-1"]
    assert {request.headers["authorization"] for request in mms.requests} == {"Bearer token-1"}


def test_threads_that_need_a_token_at_once_fetch_it_once(account: HostingAccount, authority: Authority) -> None:
    authority.slow = 0.2
    client = credentials.entra_client(account)
    threads = [threading.Thread(target=lambda: EntraCredential(client).token(forever())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert authority.given == ["token-1"]


def test_a_token_is_renewed_before_it_ends(account: HostingAccount, authority: Authority) -> None:
    authority.lasts = 0.6
    credential = credentials.credential_for(account)
    assert credential.token(forever()) == "token-1"
    assert credential.token(forever()) == "token-1"
    time.sleep(0.35)  # more than half of its lifetime
    assert credential.token(forever()) == "token-2"


@pytest.mark.slow
def test_while_the_authority_is_unavailable_a_valid_token_is_still_used(
    account: HostingAccount, authority: Authority
) -> None:
    authority.lasts = 4
    credential = credentials.credential_for(account)
    credential.token(forever())
    authority.fault = lambda: (503, {}, b"")
    time.sleep(2.1)
    assert credential.token(forever()) == "token-1"


def test_after_a_401_the_token_is_renewed_once_and_the_call_repeated(
    account: HostingAccount, mms: MMS, authority: Authority
) -> None:
    with client_for(account) as client:
        client.list_models()
        mms.token = "revoked"
        client.list_models()
    assert authority.given == ["token-1", "token-2"]


def test_a_server_that_rejects_every_token_is_called_only_twice(
    account: HostingAccount, mms: MMS, authority: Authority
) -> None:
    mms.plan("GET", "models", faults.status(401), times=5)
    with client_for(account) as client, pytest.raises(errors.TokenRefusedError):
        client.list_models()
    assert len(mms.calls("GET", "models")) == 2


def test_an_operation_waits_without_a_token_and_the_account_shows_the_reason(
    account: HostingAccount, mms: MMS, authority: Authority
) -> None:
    authority.fault = lambda: (503, {"Retry-After": "7"}, b"")
    operation = turn(register(account))
    account.refresh_from_db()
    assert (operation.state, operation.attempts) == (State.QUEUED, 0)
    assert not mms.requests, "the server was never called"
    assert "Couldn't get a token for this account" in account.error
    assert "503" in account.error
    assert account.not_before is not None
    assert not account.token_refused


def test_a_wrong_client_secret_is_reported_and_stops_calls(
    account: HostingAccount, authority: Authority, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    account.client_secret = "wrong-and-not-to-be-seen"
    account.save()
    read_models(account)
    assert account.token_refused
    assert (
        "refused to issue a token for this account (status 401): AADSTS7000215: Invalid client secret" in account.error
    )
    assert "Trace ID" not in account.error
    assert "not-to-be-seen" not in account.error + caplog.text


def test_the_correct_secret_resumes_calls(account: HostingAccount, authority: Authority) -> None:
    account.client_secret = "wrong"
    account.save()
    assert read_models(account).token_refused
    account.client_secret = SECRET
    account.clear_failure()
    account.save()
    assert not read_models(account).is_failing


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (
            lambda: (302, {"Location": "https://elsewhere.example/"}, b""),
            errors.NoTokenError,
            "Correct the account's auth",
        ),
        (lambda: (404, {}, b"<h1>"), errors.NoTokenError, "Check the account's authority and tenant"),
        (lambda: (200, {}, b"no json"), errors.NoTokenError, "no bearer token"),
        (lambda: (200, {}, b'{"access_token": "a b"}'), errors.NoTokenError, "no bearer token"),
        (lambda: (200, {}, b'{"access_token": "a", "token_type": "pop"}'), errors.NoTokenError, "no bearer token"),
        (lambda: (200, {}, b"[" * 100_000), errors.NoTokenError, "no bearer token"),
        (lambda: (200, {}, b"x" * 300_000), errors.NoTokenError, "larger than"),
        (lambda: said(400, "invalid_scope", "AADSTS70011: scope"), errors.TokenRefusedError, "AADSTS70011: scope"),
        (lambda: said(400, "temporarily_unavailable", "later"), errors.NoTokenError, "later"),
    ],
)
def test_every_response_of_the_authority_has_its_message(
    account: HostingAccount, authority: Authority, fault: Any, kind: type[errors.MMSError], words: str
) -> None:
    authority.fault = fault
    with pytest.raises(kind, match=words) as error:
        credentials.credential_for(account).token(forever())
    assert SECRET not in str(error.value)
    assert isinstance(error.value, errors.NotSentError | errors.TokenRefusedError), "the server has seen nothing"


def test_an_unreachable_authority_is_named(account: HostingAccount) -> None:
    client = EntraClient("http://127.0.0.1:1", TENANT, CLIENT_ID, SECRET, SCOPE)
    with pytest.raises(errors.NoTokenError, match=r"Couldn't reach 127\.0\.0\.1:1: connection refused"):
        credentials.fetch_token(client)


def test_neither_secret_nor_token_appears_in_a_representation(account: HostingAccount) -> None:
    client = credentials.entra_client(account)
    fetched = credentials.fetch_token(client)
    assert SECRET not in repr(client)
    assert fetched.token not in repr(fetched)


def test_tokens_are_in_no_database_and_not_in_redis(account: HostingAccount, live_redis: Any) -> None:
    read_models(account)
    with_token = [key for key in live_redis.keys("*") if b"token-1" in (live_redis.dump(key) or b"")]
    assert not with_token
    row = HostingAccount.objects.filter(pk=account.pk).values().get()
    assert "token-1" not in str(row)
