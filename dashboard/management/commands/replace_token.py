"""`manage.py replace_token`: another bearer token for a hosting account whose server refuses the present one."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard.audit.record import record_entry
from deployments.live import events
from deployments.models import HostingAccount


class Command(BaseCommand):
    help = "Replaces the bearer token of a hosting account by one read from standard input; what waited goes on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The hosting account, as people here call it.")
        parser.add_argument(
            "--token-stdin", action="store_true", required=True, help="Required: the token comes from there."
        )

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        account = HostingAccount.objects.filter(name=name).first()
        if account is None:
            known = ", ".join(HostingAccount.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"There is no hosting account {name}. Known: {known}.")
        token = sys.stdin.readline().strip()
        if not token:
            raise CommandError("Standard input held no token; nothing was changed.")
        with transaction.atomic():
            account.replace_token(token, by="whoever runs the site")
            record_entry(
                "replace_token",
                account_id=account.pk,
                account_name=account.name,
                target=account.name,
                after={"token": "changed"},
                via="command",
            )
        events.publish_account(account.pk)
        self.stdout.write(f"The account {name} uses the new token from now on.")
