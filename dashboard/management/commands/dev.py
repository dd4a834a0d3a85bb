"""`manage.py dev`: run the site with sample data for development. `make dev` sets the environment that it needs."""

import secrets
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from dashboard.management.commands import up
from dashboard.ops.seed import fill, people


class Command(up.Command):
    help = "Run the site with sample data. Changed templates, static files and Python take effect without a restart."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take no arguments: logs go to the terminal."""

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.RELOAD:
            raise CommandError("Start it with `make dev`, which uses the data folder var/dev.")
        if find_spec("watchfiles") is None:
            raise CommandError("watchfiles isn't installed. Install requirements/dev.txt, as `make dev` does.")
        super().handle(logs=True)

    def invitation(self) -> str:
        """Fill the database at the first start. Return how to sign in."""
        path = Path(settings.DATA_DIR, "sample_password")
        if not fill.found_data():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(9))
            fill.fill(path.read_text())
        if not path.exists():  # the data was not created by this command
            return super().invitation()
        names = ", ".join(f"{name} ({role})" for name, role in people.SIGN_IN.items())
        return f"Sign in as {names} with the password {path.read_text()}"
