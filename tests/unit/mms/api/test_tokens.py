"""Tokens of the bundled MMS: shown once, stored as a hash, revoked within a second."""

import time
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from dashboard.ops.startup import bundled_account
from deployments.models import HostingAccount
from mms import tokens
from mms.models import Account, Token

pytestmark = pytest.mark.django_db


def create(*arguments: str) -> str:
    return run("create_token", *arguments)


def run(*command: str, errors: StringIO | None = None) -> str:
    output = StringIO()
    call_command(*command, stdout=output, stderr=errors or StringIO())
    return output.getvalue()


def test_the_command_prints_the_token_and_nothing_else() -> None:
    tokens.create_account("local", "local", "local")
    printed = create("--account", "local")
    assert printed == printed.strip() + "\n"
    grant = tokens.find_grant(printed.strip())
    assert grant
    assert (grant.subscription, grant.resource_group, grant.account) == ("local", "local", "local")


def test_the_token_itself_is_not_in_the_database() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "for a test")
    row = Token.objects.get()
    assert token not in str(vars(row))
    assert row.name == "for a test"


def test_a_revoked_token_is_rejected_within_a_second() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "x")
    assert tokens.find_grant(token)
    assert tokens.cached_grant(token)
    tokens.revoke_token(Token.objects.get())
    assert tokens.find_grant(token) is None
    time.sleep(tokens.CACHE_SECONDS)
    assert tokens.cached_grant(token) is None


def test_a_token_describes_its_permission_and_expiry() -> None:
    tokens.create_account("local", "local", "local")
    said = StringIO()
    run("create_token", "--account", "local", errors=said)
    assert "read and write, never expires" in said.getvalue()
    run("create_token", "--account", "local", "--scope", "read", "--days", "30", errors=said)
    assert "read-only, expires on" in said.getvalue()
    until = timezone.now() + timedelta(days=30)
    newest = Token.objects.latest("pk")
    assert newest.expires_at
    assert abs(newest.expires_at - until) < timedelta(minutes=1)
    assert newest.scope == "read"


@pytest.mark.parametrize("days", ["0", "-1", "3651", "100000000000"])
def test_an_invalid_number_of_days_is_rejected(days: str) -> None:
    tokens.create_account("local", "local", "local")
    with pytest.raises(CommandError, match="--days must be from 1 to 3650"):
        create("--account", "local", f"--days={days}")
    assert not Token.objects.exists()


def test_an_expired_token_is_rejected() -> None:
    account = tokens.create_account("s", "g", "a")
    assert tokens.find_grant(tokens.create_token(account, "x", expires_at=timezone.now() + timedelta(seconds=60)))
    assert (
        tokens.find_grant(tokens.create_token(account, "x", expires_at=timezone.now() - timedelta(seconds=1))) is None
    )


def test_a_grant_knows_whether_it_may_write() -> None:
    account = tokens.create_account("s", "g", "a")
    reader, writer = (tokens.find_grant(tokens.create_token(account, "x", scope)) for scope in ("read", "write"))
    assert reader
    assert writer
    assert (reader.may_write, writer.may_write) == (False, True)


def test_the_use_of_a_token_is_recorded_once_a_minute() -> None:
    grant = tokens.find_grant(tokens.create_token(tokens.create_account("s", "g", "a"), "x"))
    assert grant
    assert [tokens.is_use_due(grant) for _ in range(3)] == [True, False, False]
    tokens.record_use(grant.token_id)
    first = Token.objects.get().last_used_at
    tokens.record_use(grant.token_id)  # as another process would, a moment later
    assert Token.objects.get().last_used_at == first
    Token.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    tokens.record_use(grant.token_id)
    assert first
    assert (Token.objects.get().last_used_at or first) > first


def test_the_list_shows_what_each_token_is_for_and_never_the_token() -> None:
    account = tokens.create_account("s", "g", "a")
    now = timezone.now()
    made = [
        tokens.create_token(account, "for the nightly job", "read"),
        tokens.create_token(account, "old", expires_at=now - timedelta(days=1)),
        tokens.create_token(account, "lost\x1b[2Jlaptop", expires_at=now + timedelta(days=1)),
    ]
    Token.objects.filter(name="old").update(last_used_at=now)
    tokens.create_token(tokens.create_account("s", "g", "other"), "of another account")
    run("revoke_token", str(Token.objects.get(name__startswith="lost").pk))
    listed = run("list_tokens", "--account", "a")
    lines = listed.splitlines()
    assert len(lines) == 4
    assert "for the nightly job  read" in lines[1]
    assert lines[1].split()[-4:] == ["never", "active,", "never", "expires"]
    assert "expired" in lines[2]
    assert f"{now:%Y-%m-%d %H:%M}" in lines[2]
    assert "lost?[2Jlaptop" in lines[3]
    assert "revoked" in lines[3]
    assert not any(token in listed or token[4:12] in listed for token in made)
    assert "of another account" in run("list_tokens")


def test_a_token_is_revoked_by_its_number_and_only_once() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "x")
    number = str(Token.objects.get().pk)
    assert "Revoked token" in run("revoke_token", number)
    at = Token.objects.get().revoked_at
    assert "already revoked" in run("revoke_token", number)
    assert Token.objects.get().revoked_at == at
    assert tokens.find_grant(token) is None


def test_one_invalid_number_prevents_every_revocation() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "x")
    with pytest.raises(CommandError, match=r"Token 999999 doesn't exist\. No token was revoked"):
        run("revoke_token", str(Token.objects.get().pk), "999999")
    assert tokens.find_grant(token)


@pytest.mark.parametrize("token", ["", "wrong", "mms_", "\udcff", "x" * 100_000])
def test_invalid_tokens_are_rejected(token: str) -> None:
    assert tokens.cached_grant(token) is None
    assert tokens.find_grant(token) is None


def test_an_unknown_account_is_reported_with_the_existing_ones() -> None:
    tokens.create_account("s", "g", "present")
    with pytest.raises(CommandError, match=r"absent.*present.*--create"):
        create("--account", "absent")
    assert not Token.objects.exists()


def test_a_missing_account_is_created_on_request() -> None:
    token = create("--account", "new", "--create").strip()
    assert tokens.find_grant(token)
    assert Account.objects.get().subscription == "new"


def test_two_accounts_with_one_name_are_distinguished() -> None:
    for subscription in ("one", "two"):
        tokens.create_account(subscription, "g", "same")
    with pytest.raises(CommandError, match="--subscription"):
        create("--account", "same")
    grant = tokens.find_grant(create("--account", "same", "--subscription", "two").strip())
    assert grant
    assert grant.subscription == "two"


def test_creating_an_account_twice_creates_one() -> None:
    assert tokens.create_account("s", "g", "a") == tokens.create_account("s", "g", "a")


def test_the_account_local_gets_a_new_token_if_its_own_lacks_access() -> None:
    bundled_account.ensure()
    first = HostingAccount.objects.get(name="local").token
    bundled_account.ensure()
    assert HostingAccount.objects.get(name="local").token == first
    Token.objects.update(expires_at=timezone.now())
    bundled_account.ensure()
    second = HostingAccount.objects.get(name="local").token
    assert second != first
    Token.objects.update(scope="read")
    bundled_account.ensure()
    assert HostingAccount.objects.get(name="local").token not in {first, second}
