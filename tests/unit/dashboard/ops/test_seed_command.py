"""`manage.py seed` in an empty database, and in one with existing data."""

import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.test import Client

from dashboard.models import Membership, Role
from dashboard.ops.seed import fill, people
from dashboard.ops.startup import bundled_account
from deployments.models import HostingAccount, Operation, RegisteredModel
from tests.support.workshop import make_account, make_model

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse 42"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows() -> None:
    def names(seed: int) -> list[Any]:
        with transaction.atomic():
            fill.fill(PASSWORD, seed)
            found = list(
                RegisteredModel.objects.order_by("mms_id").values_list("mms_id", "name", "version", "created_by")
            )
            transaction.set_rollback(True)
        return found

    assert names(1) == names(1) != names(2)


def test_it_takes_less_than_five_seconds() -> None:
    began = time.process_time()
    fill.fill(PASSWORD)
    assert time.process_time() - began < 5


def test_the_command_reports_the_created_data_and_how_to_sign_in(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("seed", password=PASSWORD)
    said = capsys.readouterr().out
    assert "3 hosting accounts" in said
    assert PASSWORD in said
    for name in people.SIGN_IN:
        assert name in said
        assert Client().login(username=name, password=PASSWORD)


@pytest.mark.parametrize("somebody", ["account", "model", "user"])
def test_it_never_changes_existing_data(somebody: str) -> None:
    if somebody == "account":
        make_account("ours")
    elif somebody == "model":
        make_model(make_account(bundled_account.NAME))
    else:
        get_user_model().objects.create_user("ada")
    with pytest.raises(fill.NotEmptyError):
        fill.fill(PASSWORD)
    assert HostingAccount.objects.exclude(name__in=["ours", bundled_account.NAME]).count() == 0


def test_the_account_of_the_bundled_server_may_exist_and_stays_empty() -> None:
    account = make_account(bundled_account.NAME)
    fill.fill(PASSWORD)
    assert not Operation.objects.filter(account=account).exists()
    assert Membership.objects.filter(account_id=account.pk, role=Role.SCIENTIST).exists()


def test_sample_data_never_goes_into_the_usual_data_folder_with_dev() -> None:
    with pytest.raises(CommandError, match="Start it with `make dev`"):
        call_command("dev")
    assert not HostingAccount.objects.exists()
