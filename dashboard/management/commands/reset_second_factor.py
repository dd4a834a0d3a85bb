"""`manage.py reset_second_factor`: turn off two-factor authentication for a user who lost access to it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from dashboard.auth import events, sessions, two_factor
from dashboard.management import users


class Command(BaseCommand):
    help = "Turn off a user's two-factor authentication, delete their recovery codes and end their sessions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        user = users.get_user_or_error(name)
        with transaction.atomic():
            had = two_factor.disable(user)
            if had:
                sessions.end_all(user)
                events.record_command("reset_second_factor", user)
        self.stdout.write(
            f"{name} now signs in with the password alone." if had else f"{name} doesn't use two-factor authentication."
        )
