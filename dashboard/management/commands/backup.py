"""`manage.py backup FILE`: everything worth keeping in one file, while the site works."""

import sys
import time
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat

from dashboard.ops.backup.create import WARNING, Failed, Held, back_up, for_the_owner_alone, in_words, whole_file

HALVES = {"dashboard": "the dashboard's uploads", "mms": "images, builds and services of the bundled MMS"}


class Command(BaseCommand):
    help = "Write the database, uploads, images, logs and the secret key into one file. The site can keep running."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="The file to write; - for standard output.")
        parser.add_argument("--force", action="store_true", help="Replace an existing file.")
        parser.add_argument(
            "--files-only", action="store_true", help="Leave out the database, because the other half's backup has it."
        )

    def handle(self, *args: Any, file: str, force: bool, files_only: bool, **options: Any) -> None:
        started = time.monotonic()
        if file == "-" and sys.stdout.isatty():
            raise CommandError("A backup is binary. Write it to a file or a pipe, not to a terminal.")
        target = nullcontext(sys.stdout.buffer) if file == "-" else whole_file(Path(file), force)
        try:
            with for_the_owner_alone(), target as output:
                size = back_up(output, self._say, with_database=not files_only)
                output.flush()
        except (Failed, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(in_words(error)) from None
        name = "The backup" if file == "-" else file
        seconds = time.monotonic() - started
        self.stderr.write(
            f"{name} is complete: {filesizeformat(size)} in {seconds:.1f} s. {WARNING}", self.style.NOTICE
        )
        for half in HALVES.keys() - settings.SERVE:
            self.stderr.write(
                f"It doesn't contain {HALVES[half]}, which this half of the site lacks. Back up the other half, too."
            )

    def _say(self, held: Held) -> None:
        files = "1 file " if held.count == 1 else f"{held.count} files"
        self.stderr.write(f"✓ {held.what:<24}{files:>14}{filesizeformat(held.size):>12}", self.style.SUCCESS)
        if held.gone:
            self.stderr.write(f"  {held.gone} of the {held.what} were deleted during the backup and aren't in it.")
        if held.damaged:
            self.stderr.write(
                f"  {held.damaged} of the {held.what} are damaged on this disk: their content doesn't match their name."
            )
