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
    help = "Writes database, uploads, images, logs and the secret key into one file, while the site works."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="Where to write it; - is the standard output.")
        parser.add_argument("--force", action="store_true", help="Replace the file if it is there.")
        parser.add_argument(
            "--files-only", action="store_true", help="Leave the database out: it is in another half's backup."
        )

    def handle(self, *args: Any, file: str, force: bool, files_only: bool, **options: Any) -> None:
        started = time.monotonic()
        if file == "-" and sys.stdout.isatty():
            raise CommandError("A backup is no text for a terminal: send it to a file or a pipe.")
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
                f"It does not hold {HALVES[half]}: this half of the site has none. Back up the other, too."
            )

    def _say(self, held: Held) -> None:
        files = "1 file " if held.count == 1 else f"{held.count} files"
        self.stderr.write(f"✓ {held.what:<24}{files:>14}{filesizeformat(held.size):>12}", self.style.SUCCESS)
        if held.gone:
            self.stderr.write(f"  {held.gone} of the {held.what} were deleted meanwhile and are not in the backup.")
        if held.damaged:
            self.stderr.write(
                f"  {held.damaged} of the {held.what} are damaged on this disk: not what their names say."
            )
