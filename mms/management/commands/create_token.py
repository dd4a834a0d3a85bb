"""`manage.py create_token`: a bearer token for the bundled MMS."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from mms.models import Account, Scope
from mms.tokens import create_account, create_token

PERMISSIONS = {Scope.READ: "read-only", Scope.WRITE: "read and write"}
MAX_DAYS = 3650


class Command(BaseCommand):
    """Create a token, and its account with --create."""

    help = "Create a bearer token for a hosting account of the bundled MMS and print it. It is shown only once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="name of the hosting account")
        parser.add_argument("--subscription", help="required only if several accounts have this name")
        parser.add_argument("--resource-group", help="required only if several accounts have this name")
        parser.add_argument("--name", default="command line", help="purpose of the token")
        parser.add_argument(
            "--scope",
            choices=Scope.values,
            default=Scope.WRITE,
            help="read: only GET requests, except for scoring keys",
        )
        parser.add_argument("--days", type=int, help="days until the token expires (default: never)")
        parser.add_argument("--create", action="store_true", help="create the account if it doesn't exist")

    def handle(self, **options: Any) -> None:
        days, scope = options["days"], Scope(options["scope"])
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise CommandError(f"--days must be from 1 to {MAX_DAYS}. Omit it for a token that never expires.")
        expires_at = None if days is None else timezone.now() + timedelta(days=days)
        account = self._account(options)
        token = create_token(account, options["name"][:100], scope, expires_at)
        expiry = (
            f"expires on {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "never expires (use --days to limit it)"
        )
        # On stderr, so that scripts read only the token from stdout.
        self.stderr.write(f"Token for {account}: {PERMISSIONS[scope]}, {expiry}. It is shown only once:")
        self.stdout.write(token)

    def _account(self, options: dict[str, Any]) -> Account:
        name, subscription, group = options["account"], options["subscription"], options["resource_group"]
        filters = {"name": name, "subscription": subscription, "resource_group": group}
        found = list(Account.objects.filter(**{key: value for key, value in filters.items() if value}))
        if len(found) == 1:
            return found[0]
        if found:
            raise CommandError(
                f"Several accounts are named {name}. Select one with --subscription and --resource-group."
            )
        if not options["create"]:
            known = ", ".join(Account.objects.values_list("name", flat=True)) or "none"
            raise CommandError(
                f"Hosting account {name!r} doesn't exist (existing: {known}). Add --create to create it."
            )
        return create_account(subscription or name, group or name, name)
