"""Sample audit entries that match the other rows.

The log is append-only, so the entries are written last, in chronological order.
"""

from datetime import datetime
from typing import Any

from dashboard.audit.models import AuditEntry
from dashboard.ops.seed.history.story import Story
from dashboard.ops.seed.people import PEOPLE, PROGRAM, Person
from dashboard.ops.seed.world import DAYS, World
from deployments.models import HostingAccount, Operation
from deployments.operations.submit import redact_keys

Result = AuditEntry.Result


class Log:
    """Collector of audit entries. They can be added in any order; `save` sorts them by time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: list[AuditEntry] = []

    def add(
        self,
        at: datetime,
        actor: str,
        action: str,
        account: HostingAccount | None = None,
        result: str = Result.DONE,
        via: str = "",
        **what: Any,
    ) -> None:
        via = via or ("api" if actor == PROGRAM else "page")
        if account:
            what |= {"account_id": account.pk, "account_name": account.name}
        address = self._address(actor) if via in {"page", "api", "provider"} else ""
        self.entries.append(
            AuditEntry(at=at, actor=actor, action=action, result=result, via=via, address=address, **what)
        )

    def save(self) -> None:
        AuditEntry.objects.bulk_create(sorted(self.entries, key=lambda entry: entry.at), batch_size=400)

    def _address(self, actor: str) -> str:
        return f"10.20.{len(actor) % 8}.{sum(map(ord, actor)) % 200 + 20}"


def write(world: World, stories: list[Story]) -> None:
    """Write all audit entries."""
    log = Log(world)
    _add_beginning(log, [story.account for story in stories])
    for person in PEOPLE:
        _add_sessions(log, person)
    for story in stories:
        for operation in story.operations:
            _add_operation(log, operation)
    _add_incidents(log, stories[0])
    log.save()


def _add_beginning(log: Log, accounts: list[HostingAccount]) -> None:
    ago = log.world.ago
    log.add(ago(days=45), "", "create_user", via="command", target="admin", after={"role": "admin", "accounts": []})
    for account in accounts:
        log.add(ago(days=44.5), "admin", "add_account", account, target=account.name)
        for name in ("releases", "experiments"):
            log.add(ago(days=43), "omar", "add_registry", account, target=name, after={"password": "set"})
        for name in ("staging", "production"):
            log.add(
                ago(days=43), "omar", "add_cluster", account, target=name, after={"production": name == "production"}
            )
    by_name = {account.name: account for account in accounts}
    for number, person in enumerate(PEOPLE[1:], start=1):
        log.add(ago(days=44 - number), "admin", "add_person", target=person.name)
        for name in person.accounts:
            if name in by_name:
                role = {"role": str(person.role)}
                log.add(ago(days=43.9 - number), "admin", "add_member", by_name[name], target=person.name, after=role)


def _add_sessions(log: Log, person: Person) -> None:
    if person.invited or person.name == PROGRAM:
        return
    how = "provider" if person.provider else "password"
    for at in log.world.work_times(6, newest=0.2 if person.active else 20):
        log.add(at, person.name, "sign_in", via="provider" if person.provider else "page", after={"by": how})
    if log.world.chance(0.5):
        wrong = {"by": "password"}
        log.add(log.world.work_times(1, 0.3)[0], person.name, "sign_in_failed", result=Result.REFUSED, after=wrong)


def _add_operation(log: Log, operation: Operation) -> None:
    action = "retry_operation" if operation.retry_of else operation.kind
    after = {"operation": str(operation.pk), **redact_keys(operation.body)}
    target = str(operation.resource)[:300]
    log.add(operation.requested_at, operation.requested_by, action, operation.account, target=target, after=after)
    if operation.state == "canceled" and operation.finished_at:
        target = f"{operation} ({operation.pk})"[:300]
        log.add(operation.finished_at, operation.requested_by, "cancel_operation", operation.account, target=target)


def _add_incidents(log: Log, story: Story) -> None:
    """Add denied requests, a failure, and changes to settings and users."""
    account, ago = story.account, log.world.ago
    refused = {"result": Result.REFUSED}
    log.add(ago(days=11), "vera", "create_service", account, **refused)
    log.add(ago(days=8), "samira", "update_service", account, target="demand-daily", **refused)
    log.add(ago(days=9, hours=2), "omar", "change_registry", account, target="releases", after={"password": "changed"})
    log.add(ago(days=6), "omar", "revoke_token", target="terraform trial of omar")
    log.add(ago(days=16), "lena.hoffmann", "create_image", account, result=Result.FAILED)
    log.add(
        ago(days=20), "admin", "change_person", target="wouter", before={"is_active": True}, after={"is_active": False}
    )
    log.add(ago(days=1, hours=4), "omar", "test_server", account, target=account.name, after={"ok": True})
    log.add(ago(days=DAYS - 4), "omar", "create_token", target="nightly retraining of ci-pipeline")
    log.add(ago(hours=7), "samira", "show_key", account, target="promo-uplift")
