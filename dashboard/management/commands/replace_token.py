"""`manage.py replace_token`: replace the bearer token with which the dashboard calls a hosting account's server."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard.audit.record import record_entry
from deployments.live import events
from deployments.models import HostingAccount
from encryption import check


class Command(BaseCommand):
    help = (
        "Replace the bearer token of a hosting account with one read from standard input. Queued operations continue."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The hosting account's name in the dashboard.")
        parser.add_argument(
            "--token-stdin", action="store_true", required=True, help="Required. The token is read from standard input."
        )

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        try:
            check.require_key()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        account = HostingAccount.objects.filter(name=name).first()
        if account is None:
            known = ", ".join(HostingAccount.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"The hosting account {name} doesn't exist. Known: {known}.")
        token = sys.stdin.readline().strip()
        if not token:
            raise CommandError("Standard input contained no token. Nothing was changed.")
        with transaction.atomic():
            account.replace_token(token, by="the operator of the site")
            record_entry(
                "replace_token",
                account_id=account.pk,
                account_name=account.name,
                target=account.name,
                after={"token": "changed"},
                via="command",
            )
        events.publish_account(account.pk)
        self.stdout.write(f"The account {name} now uses the new token.")
