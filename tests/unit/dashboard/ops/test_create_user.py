"""Commands for users and hosting accounts, which scripts can run without prompts."""

import io
from collections.abc import Callable

import pytest
import redis
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from dashboard.models import AuditEntry, Membership, OpenSession
from deployments.models import HostingAccount
from tests.support.lifecycle import present

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"


@pytest.fixture
def accounts() -> list[HostingAccount]:
    names = ["local", "other"]
    return [
        HostingAccount.objects.create(
            name=name, base_url="http://127.0.0.1:1", subscription="s", resource_group="g", hosting_account="h"
        )
        for name in names
    ]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the standard input of the next command."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_an_administrator_can_sign_in(stdin: Callable[[str], None]) -> None:
    stdin(f"{PASSWORD}\n")
    call_command("create_user", "ada", "--role", "admin", "--password-stdin")
    ada = authenticate(username="ada", password=PASSWORD)
    assert ada
    assert ada.is_superuser


def test_a_role_is_given_in_the_named_account_only(
    stdin: Callable[[str], None], accounts: list[HostingAccount]
) -> None:
    stdin(PASSWORD)
    call_command("create_user", "bob", "--role", "viewer", "--account", "other", "--password-stdin")
    assert list(Membership.objects.values_list("account_id", "role")) == [(accounts[1].pk, "viewer")]


def test_without_an_account_the_role_is_given_in_all(
    stdin: Callable[[str], None], accounts: list[HostingAccount]
) -> None:
    stdin(PASSWORD)
    call_command("create_user", "bob", "--role", "operator", "--password-stdin")
    assert set(Membership.objects.values_list("account_id", flat=True)) == {account.pk for account in accounts}


@pytest.mark.parametrize("password", ["", "\n", "short", "password12", "1234567890123", "charlotte-1"])
def test_weak_and_empty_passwords_are_rejected(stdin: Callable[[str], None], password: str) -> None:
    stdin(password)
    with pytest.raises(CommandError):
        call_command("create_user", "charlotte", "--role", "admin", "--password-stdin")
    assert not get_user_model().objects.exists()


def test_without_a_terminal_there_is_no_prompt(stdin: Callable[[str], None]) -> None:
    stdin("")
    with pytest.raises(CommandError, match="--password-stdin"):
        call_command("create_user", "ada", "--role", "admin")


def test_an_unknown_account_is_rejected_and_the_known_ones_are_listed(
    stdin: Callable[[str], None], accounts: list[HostingAccount]
) -> None:
    stdin(PASSWORD)
    with pytest.raises(CommandError, match=r"The hosting account nowhere doesn't exist.*local, other"):
        call_command("create_user", "bob", "--role", "viewer", "--account", "nowhere", "--password-stdin")
    assert not get_user_model().objects.exists()


def test_a_name_in_use_is_rejected(stdin: Callable[[str], None]) -> None:
    stdin(PASSWORD)
    call_command("create_user", "ada", "--role", "admin", "--password-stdin")
    stdin(PASSWORD)
    with pytest.raises(CommandError, match="already exists"):
        call_command("create_user", "ada", "--role", "admin", "--password-stdin")


ADD = ["add_account", "far", "--base-url", "https://mms.example/", "--subscription", "s"]
ADD += ["--resource-group", "g", "--hosting-account", "h", "--token-stdin"]


def test_an_account_is_added_with_the_token_from_standard_input(stdin: Callable[[str], None]) -> None:
    stdin("t0ken\n")
    call_command(*ADD)
    account = HostingAccount.objects.get()
    assert (account.name, account.base_url, account.token) == ("far", "https://mms.example", "t0ken")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.via, entry.account_id, present(entry.after)["token"]) == (
        "add_account",
        "command",
        account.pk,
        "changed",
    )


def test_an_account_without_a_token_or_with_an_invalid_address_is_rejected(stdin: Callable[[str], None]) -> None:
    stdin("\n")
    with pytest.raises(CommandError, match="no token"):
        call_command(*ADD)
    stdin("t0ken")
    with pytest.raises(CommandError, match="base_url"):
        call_command(*[word.replace("https://mms.example/", "not an address") for word in ADD])
    assert not HostingAccount.objects.exists()


def test_a_rejected_token_is_replaced_and_the_account_is_called_again(
    stdin: Callable[[str], None], accounts: list[HostingAccount]
) -> None:
    HostingAccount.objects.update(token_refused=True, error="401")
    stdin("n3w\n")
    call_command("replace_token", "other", "--token-stdin")
    account = HostingAccount.objects.get(name="other")
    assert (account.token, account.token_refused, account.error) == ("n3w", False, "")
    assert HostingAccount.objects.get(name="local").token_refused
    entry = AuditEntry.objects.get(action="replace_token")
    assert (entry.via, entry.target, entry.after) == ("command", "other", {"token": "changed"})


def test_an_empty_token_and_an_unknown_account_are_rejected(
    stdin: Callable[[str], None], accounts: list[HostingAccount]
) -> None:
    stdin("\n")
    with pytest.raises(CommandError, match="no token"):
        call_command("replace_token", "other", "--token-stdin")
    with pytest.raises(CommandError, match="Known: local, other"):
        call_command("replace_token", "far", "--token-stdin")


def test_a_new_password_ends_all_sessions(stdin: Callable[[str], None]) -> None:
    ada = get_user_model().objects.create_user("ada", password="forgotten long ago")
    client = Client()
    client.force_login(ada)
    stdin(f"{PASSWORD}\n")
    call_command("set_password", "ada", "--password-stdin")
    assert authenticate(username="ada", password=PASSWORD)
    assert client.get("/you/").status_code == 302


def test_a_weak_password_changes_nothing(stdin: Callable[[str], None]) -> None:
    ada = get_user_model().objects.create_user("ada", password=PASSWORD)
    stdin("password12\n")
    with pytest.raises(CommandError, match="too common"):
        call_command("set_password", "ada", "--password-stdin")
    ada.refresh_from_db()
    assert ada.check_password(PASSWORD)


def test_a_deactivated_user_is_signed_out_until_reactivated(live_redis: redis.Redis) -> None:
    ada = get_user_model().objects.create_user("ada", password=PASSWORD)
    client = Client()
    client.force_login(ada)
    call_command("deactivate_user", "ada")
    assert client.get("/you/").status_code == 302
    assert not OpenSession.objects.filter(user_id=ada.pk).exists()
    assert authenticate(username="ada", password=PASSWORD) is None
    call_command("deactivate_user", "ada", "--undo")
    assert authenticate(username="ada", password=PASSWORD)
    actions = AuditEntry.objects.order_by("pk").values_list("action", "target", "via")
    assert list(actions) == [("deactivate_user", "ada", "command"), ("activate_user", "ada", "command")]


@pytest.mark.parametrize("command", ["set_password", "deactivate_user", "reset_second_factor"])
def test_an_unknown_user_is_reported(command: str) -> None:
    with pytest.raises(CommandError, match="There is no user named eve"):
        call_command(command, "eve")
