"""`manage.py demo`: deploy the iris example on the running site and send it a request."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dashboard.ops.demo import Demo, DemoError
from dashboard.ops.startup import banner
from deployments.models import HostingAccount, Operation
from deployments.operations.submit import RequestRefusedError


class Command(BaseCommand):
    help = "Register the iris example, build its image, deploy or update its service, and score with it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", default="local", help="The hosting account to use.")

    def handle(self, *args: Any, account: str, **options: Any) -> None:
        demo = Demo(self._get_account(account), self._show_state)
        try:
            for step in demo.run():
                self._clear()
                self.stdout.write(f"✓ {step.label:<16}{step.result:<28}{step.seconds:6.1f} s")
            body, answer = demo.score()
        except (DemoError, RequestRefusedError) as error:
            self._clear()
            raise CommandError(str(error)) from None
        if answer.problem or answer.status != 200:
            raise CommandError(f"Scoring failed: {answer.problem or answer.text}")
        self.stdout.write(f"✓ {'score':<44}{answer.milliseconds / 1000:6.3f} s\n\n{body}\n{answer.text}\n")
        self.stdout.write(f"See the service and call it yourself: {settings.SITE_URL}/accounts/{account}/services/")

    def _get_account(self, name: str) -> HostingAccount:
        broken = {part: state for part, state in banner.health().items() if state != "works"}
        if broken:
            reasons = ", ".join(f"{part} {state}" for part, state in broken.items())
            raise CommandError(
                f"The site at {settings.SITE_URL} isn't working ({reasons}). Start it with `{settings.START_COMMAND}`."
            )
        account = HostingAccount.objects.filter(name=name).first()
        if account is None:
            raise CommandError(f"The hosting account {name} doesn't exist.")
        return account

    def _show_state(self, operation: Operation) -> None:
        """On a terminal, show the state of the current step."""
        if self.stdout.isatty():
            state = operation.get_state_display().lower()
            self.stdout.write(f"\r… {operation.get_kind_display().lower():<16}{state:<28}", ending="")
            self.stdout.flush()

    def _clear(self) -> None:
        if self.stdout.isatty():
            self.stdout.write("\r" + " " * 60 + "\r", ending="")
