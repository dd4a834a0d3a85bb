from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from mms.models import Account, Scope
from mms.tokens import create_account, create_token

MEANING = {Scope.READ: "may only read", Scope.WRITE: "may read and write"}
MAX_DAYS = 3650


class Command(BaseCommand):
    help = "Create a bearer token for a hosting account of the bundled MMS and print it. It is shown only once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="name of the hosting account on this MMS")
        parser.add_argument("--subscription", help="needed only if several accounts have that name")
        parser.add_argument("--resource-group", help="needed only if several accounts have that name")
        parser.add_argument("--name", default="command line", help="what the token is for")
        parser.add_argument(
            "--scope", choices=Scope.values, default=Scope.WRITE, help="read: only GET, no scoring keys"
        )
        parser.add_argument("--days", type=int, help="days until it expires; default: never")
        parser.add_argument("--create", action="store_true", help="create the account if it doesn't exist")

    def handle(self, **options: Any) -> None:
        days, scope = options["days"], Scope(options["scope"])
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise CommandError(f"--days must be from 1 to {MAX_DAYS}; leave it out for a token that never expires.")
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        account = self._account(options)
        token = create_token(account, options["name"][:100], scope, expires_at)
        # Apart from the token, which scripts read.
        until = (
            f"expires on {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "never expires (limit it with --days N)"
        )
        self.stderr.write(f"A token of {account} that {MEANING[scope]} and {until}. It is shown only once:")
        self.stdout.write(token)

    def _account(self, options: dict[str, Any]) -> Account:
        name, subscription, group = options["account"], options["subscription"], options["resource_group"]
        wanted = {"name": name, "subscription": subscription, "resource_group": group}
        found = list(Account.objects.filter(**{key: value for key, value in wanted.items() if value}))
        if len(found) == 1:
            return found[0]
        if found:
            raise CommandError(
                f"Several accounts are named {name}. Choose one with --subscription and --resource-group."
            )
        if not options["create"]:
            known = ", ".join(Account.objects.values_list("name", flat=True)) or "none"
            raise CommandError(
                f"The hosting account {name!r} doesn't exist on this MMS (known: {known}). To create it, add --create."
            )
        return create_account(subscription or name, group or name, name)
