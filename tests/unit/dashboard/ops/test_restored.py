"""Operations after a restore: those queued at the time of the backup may have been sent since."""

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments import restored
from deployments.live.badges import badge_of
from deployments.mirror import refresh
from deployments.models import HostingAccount, Operation, RegisteredModel, Service
from deployments.models.operation import State
from tests.doubles.mms import MMS
from tests.support.lifecycle import present, register, turn

pytestmark = pytest.mark.django_db(transaction=True)
BACKUP = timezone.now() - timedelta(hours=3)


def as_backed_up(operation: Operation, state: State = State.QUEUED) -> Operation:
    """Reset the operation to its state in a backup made three hours ago."""
    fields = {"state": state, "requested_at": BACKUP, "state_since": BACKUP, "sent_at": None, "attempts": 0}
    if state == State.SENDING:
        fields |= {"sent_at": BACKUP, "attempts": 1, "claimed_until": BACKUP + timedelta(seconds=90)}
    RegisteredModel.objects.update(mms_id=None, seen_at=None)
    Operation.objects.filter(pk=operation.pk).update(**fields)
    return Operation.objects.get(pk=operation.pk)


@pytest.mark.parametrize("state", [State.QUEUED, State.SENDING])
def test_an_operation_sent_after_the_backup_is_found_and_not_sent_again(
    account: HostingAccount, mms: MMS, state: State
) -> None:
    operation = register(account)
    assert turn(operation).state == State.SUCCEEDED  # at the site, which kept running after the backup
    as_backed_up(operation, state)
    assert restored.mark_queued_uncertain(BACKUP) == 1
    doubted = Operation.objects.get(pk=operation.pk)
    assert doubted.state == State.UNCERTAIN
    assert f"{BACKUP:%Y-%m-%d %H:%M} UTC" in doubted.error_message
    settled = turn(doubted)
    assert settled.state == State.SUCCEEDED
    assert present(settled.model).mms_id in mms.models
    assert mms.effects["models"] == 1


def test_the_mirror_attributes_the_effect_to_the_operation(account: HostingAccount, mms: MMS) -> None:
    operation = register(account)
    turn(operation)
    as_backed_up(operation)
    restored.mark_queued_uncertain(BACKUP)
    refresh.refresh(account.pk, [RegisteredModel])
    assert RegisteredModel.objects.count() == 1
    assert turn(Operation.objects.get(pk=operation.pk)).state == State.SUCCEEDED
    assert RegisteredModel.objects.get().mms_id in mms.models


def test_an_unsent_operation_is_sent_after_a_search_finds_no_effect(account: HostingAccount, mms: MMS) -> None:
    operation = as_backed_up(register(account))
    restored.mark_queued_uncertain(BACKUP)
    assert turn(operation).state == State.UNCERTAIN, "it may have been sent just before"
    earlier = timezone.now() - timedelta(seconds=70)
    Operation.objects.update(sent_at=earlier, state_since=earlier, next_poll_at=timezone.now())
    assert turn(operation).state == State.QUEUED
    assert turn(operation).state == State.SUCCEEDED
    assert mms.effects["models"] == 1


def test_ended_and_accepted_operations_are_unchanged(account: HostingAccount) -> None:
    operation = register(account)
    for state in set(State) - {State.QUEUED, State.SENDING}:
        Operation.objects.update(state=state)
        assert restored.mark_queued_uncertain(BACKUP) == 0
        assert Operation.objects.get(pk=operation.pk).state == state


def test_rows_read_before_the_backup_are_stale_until_they_are_read_again(account: HostingAccount, mms: MMS) -> None:
    made = mms.add_service("iris")
    service = Service.objects.create(account=account, mms_id=made["id"], name="iris", state="Succeeded", seen_at=BACKUP)
    assert badge_of(service).stale_since == BACKUP
    refresh.refresh(account.pk, [Service])
    service.refresh_from_db()
    assert badge_of(service).stale_since is None
