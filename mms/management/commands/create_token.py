from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mms.models import Account
from mms.tokens import create_account, create_token


class Command(BaseCommand):
    help = "Make a bearer token for one hosting account of the bundled MMS and print it. It is shown only this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="name of the hosting account at this MMS")
        parser.add_argument("--subscription", help="needed only where several accounts have that name")
        parser.add_argument("--resource-group", help="needed only where several accounts have that name")
        parser.add_argument("--name", default="command line", help="what the token is for")
        parser.add_argument("--create", action="store_true", help="make the account if there is none of that name")

    def handle(self, **options: Any) -> None:
        self.stdout.write(create_token(self._account(options), options["name"][:100]))

    def _account(self, options: dict[str, Any]) -> Account:
        name, subscription, group = options["account"], options["subscription"], options["resource_group"]
        wanted = {"name": name, "subscription": subscription, "resource_group": group}
        found = list(Account.objects.filter(**{key: value for key, value in wanted.items() if value}))
        if len(found) == 1:
            return found[0]
        if found:
            raise CommandError(f"Several accounts are named {name}: say which by --subscription and --resource-group.")
        if not options["create"]:
            known = ", ".join(Account.objects.values_list("name", flat=True)) or "none"
            raise CommandError(f"There is no hosting account {name!r} at this MMS (there are: {known}). Add --create.")
        return create_account(subscription or name, group or name, name)
