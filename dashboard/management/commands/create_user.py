"""`manage.py create_user`: create a user or a service account, if necessary without prompts."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard.access.models import Membership, Role
from dashboard.auth import events
from dashboard.auth.models import Machine
from dashboard.management import prompts
from deployments.models import HostingAccount

ADMIN = "admin"


class Command(BaseCommand):
    help = "Create a user: an administrator, or a member of one or all hosting accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--role", required=True, choices=[*Role.values, ADMIN])
        parser.add_argument("--account", help="The hosting account for the role. Default: every account.")
        ways = parser.add_mutually_exclusive_group()
        ways.add_argument("--password-stdin", action="store_true", help="Read the password from standard input.")
        ways.add_argument(
            "--machine",
            action="store_true",
            help="A service account: it has no password and can't sign in; it uses tokens.",
        )

    def handle(
        self,
        *args: Any,
        name: str,
        role: str,
        account: str | None,
        password_stdin: bool,
        machine: bool = False,
        **options: Any,
    ) -> None:
        accounts = _accounts(role, account)
        user = get_user_model()(username=name, is_superuser=role == ADMIN)
        try:
            user.full_clean(exclude=["password"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        user.set_password(
            None if machine else prompts.read_password(user, password_stdin)
        )  # None: no password is valid
        with transaction.atomic():
            user.save()
            if machine:
                Machine.objects.create(user=user)
            Membership.objects.bulk_create(Membership(user=user, account_id=row.pk, role=role) for row in accounts)
            roles = {"role": role, "accounts": [row.name for row in accounts]}
            events.record_command("create_user", user, after=roles)
        where = f" in {', '.join(row.name for row in accounts)}" if accounts else ""
        done = "is a service account: an administrator creates its tokens," if machine else "can sign in"
        self.stdout.write(f"{name} {done} as {role}{where}.")


def _accounts(role: str, name: str | None) -> list[HostingAccount]:
    """Return the accounts for the role. Administrators need none. Raises CommandError."""
    if role == ADMIN:
        if name:
            raise CommandError("An administrator has every permission in every account. Leave out --account.")
        return []
    accounts = HostingAccount.objects.filter(name=name) if name else HostingAccount.objects.all()
    if not accounts:
        known = ", ".join(HostingAccount.objects.values_list("name", flat=True)) or "none yet"
        raise CommandError(f"The hosting account {name or 'for the role'} doesn't exist. Known: {known}.")
    return list(accounts)
