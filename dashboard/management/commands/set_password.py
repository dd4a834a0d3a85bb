"""`manage.py set_password`: change the password of a user and end all their sessions."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dashboard.auth import events, sessions
from dashboard.management import prompts, users


class Command(BaseCommand):
    help = "Change a user's password and end all their sessions. Two-factor authentication stays on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--password-stdin", action="store_true", help="Read the password from standard input.")

    def handle(self, *args: Any, name: str, password_stdin: bool, **options: Any) -> None:
        user = users.get_user_or_error(name)
        if hasattr(user, "identity"):
            raise CommandError(f"{name} signs in with the identity provider and has no password here.")
        user.set_password(prompts.read_password(user, password_stdin))
        with transaction.atomic():
            user.save(update_fields=["password"])
            sessions.end_all(user)
            events.record_command("set_password", user, after={"password": "changed"})
        self.stdout.write(f"Changed the password of {name}, who is now signed out everywhere.")
