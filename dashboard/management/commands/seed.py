"""`manage.py seed`: fill an empty database with sample data for development and demonstrations."""

import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError

from dashboard.ops.seed import fill, people
from dashboard.ops.startup import prepare


class Command(BaseCommand):
    help = "Fill an empty database with realistic sample data. Builds nothing and calls no server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=fill.SEED, help="Another number creates different rows.")
        parser.add_argument("--password", default="", help="For everyone who can sign in; generated if left out.")

    def handle(self, *args: Any, seed: int, password: str, **options: Any) -> None:
        password = password or secrets.token_urlsafe(9)
        try:
            validate_password(password)
            prepare.prepare(serves_pages=False)
            made = fill.fill(password, seed)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except fill.NotEmptyError as error:
            raise CommandError(
                f"Nothing was written: the database already contains data ({error}). Sample data requires an "
                f"empty one. Choose another folder: DATA_DIR=/tmp/sample {settings.COMMAND} seed"
            ) from None
        for noun, count in made.counts.items():
            self.stdout.write(f"{count:6} {noun}")
        self.stdout.write(f"\nSign in at {settings.SITE_URL} with the password {password}")
        for name, role in people.SIGN_IN.items():
            self.stdout.write(f"  {name:<8}{role}")
