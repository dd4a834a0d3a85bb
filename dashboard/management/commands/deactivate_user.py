"""`manage.py deactivate_user`: stop a user from signing in. Their history isn't deleted."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from dashboard.access import revocation
from dashboard.auth import events, sessions
from dashboard.management import users


class Command(BaseCommand):
    help = "Sign a user out everywhere, stop them from signing in, and cancel their queued operations."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--undo", action="store_true", help="Let the user sign in again.")

    def handle(self, *args: Any, name: str, undo: bool, **options: Any) -> None:
        user = users.get_user_or_error(name)
        before, user.is_active = user.is_active, undo
        with transaction.atomic():
            user.save(update_fields=["is_active"])
            sessions.end_all(user)
            change: dict[str, Any] = {"before": {"active": before}, "after": {"active": undo}}
            events.record_command("activate_user" if undo else "deactivate_user", user, **change)
        revocation.cancel_unauthorized_operations()
        self.stdout.write(f"{name} can sign in again." if undo else f"{name} is signed out and can't sign in.")
