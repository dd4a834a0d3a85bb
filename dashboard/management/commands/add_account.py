"""`manage.py add_account`: add a hosting account at any server that implements the MMS API."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard.audit.record import record_entry
from deployments.models import HostingAccount
from encryption import check


class Command(BaseCommand):
    help = "Add a hosting account. Its bearer token is read from standard input and stored encrypted."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="Its name in the dashboard; part of every page's URL.")
        parser.add_argument("--base-url", required=True, help="Scheme, host and port of the server, without /api.")
        parser.add_argument("--subscription", required=True)
        parser.add_argument("--resource-group", required=True)
        parser.add_argument("--hosting-account", required=True)
        parser.add_argument(
            "--token-stdin", action="store_true", required=True, help="Required. The token is read from standard input."
        )

    def handle(self, *args: Any, name: str, base_url: str, **options: Any) -> None:
        try:
            check.require_key()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        account = HostingAccount(
            name=name,
            base_url=base_url.rstrip("/"),
            subscription=options["subscription"],
            resource_group=options["resource_group"],
            hosting_account=options["hosting_account"],
            token=sys.stdin.readline().strip(),
        )
        if not account.token:
            raise CommandError("Standard input contained no token. Nothing was added.")
        try:
            account.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(_sentences(error))) from None
        account.record_secret_change("the operator of the site")
        with transaction.atomic():
            account.save()
            after = {"base_url": account.base_url, "token": "changed"}
            record_entry(
                "add_account",
                account_id=account.pk,
                account_name=account.name,
                target=account.name,
                after=after,
                via="command",
            )
        self.stdout.write(f"Added the account {name} at {account.base_url}.")


def _sentences(error: ValidationError) -> list[str]:
    return [f"{field}: {' '.join(messages)}" for field, messages in error.message_dict.items()]
