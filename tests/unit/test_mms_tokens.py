"""Tokens of the bundled MMS: shown once, kept as a hash, closed within a second."""

import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from mms import tokens
from mms.models import Account, Token

pytestmark = pytest.mark.django_db


def create(*arguments: str) -> str:
    output = StringIO()
    call_command("create_token", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_prints_the_token_and_nothing_else() -> None:
    tokens.create_account("local", "local", "local")
    printed = create("--account", "local")
    assert printed == printed.strip() + "\n"
    grant = tokens.check(printed.strip())
    assert grant
    assert (grant.subscription, grant.resource_group, grant.account) == ("local", "local", "local")


def test_the_token_itself_is_nowhere_in_the_database() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "for a test")
    row = Token.objects.get()
    assert token not in str(vars(row))
    assert row.name == "for a test"


def test_a_revoked_token_is_closed_within_a_second() -> None:
    token = tokens.create_token(tokens.create_account("s", "g", "a"), "x")
    assert tokens.check(token)
    assert tokens.remembered(token)
    tokens.revoke_token(Token.objects.get())
    assert tokens.check(token) is None
    time.sleep(tokens.CACHED_FOR)
    assert tokens.remembered(token) is None


@pytest.mark.parametrize("token", ["", "wrong", "mms_", "\udcff", "x" * 100_000])
def test_what_is_no_token_opens_nothing(token: str) -> None:
    assert tokens.remembered(token) is None
    assert tokens.check(token) is None


def test_an_unknown_account_is_named_with_those_there_are() -> None:
    tokens.create_account("s", "g", "present")
    with pytest.raises(CommandError, match=r"absent.*present.*--create"):
        create("--account", "absent")
    assert not Token.objects.exists()


def test_a_missing_account_is_made_when_asked_for() -> None:
    token = create("--account", "new", "--create").strip()
    assert tokens.check(token)
    assert Account.objects.get().subscription == "new"


def test_two_accounts_of_one_name_are_told_apart() -> None:
    for subscription in ("one", "two"):
        tokens.create_account(subscription, "g", "same")
    with pytest.raises(CommandError, match="--subscription"):
        create("--account", "same")
    grant = tokens.check(create("--account", "same", "--subscription", "two").strip())
    assert grant
    assert grant.subscription == "two"


def test_making_an_account_twice_is_making_it_once() -> None:
    assert tokens.create_account("s", "g", "a") == tokens.create_account("s", "g", "a")
