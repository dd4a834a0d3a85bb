"""`manage.py backup FILE`: back up the installation into one file while the site is in use."""

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

from dashboard.ops.backup.create import (
    CONTENTS_WARNING,
    BackupError,
    PartSummary,
    atomic_output_file,
    create_backup,
    private_files,
    user_message,
)

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
        target = nullcontext(sys.stdout.buffer) if file == "-" else atomic_output_file(Path(file), force)
        try:
            with private_files(), target as output:
                size = create_backup(output, self._report, with_database=not files_only)
                output.flush()
        except (BackupError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(user_message(error)) from None
        name = "The backup" if file == "-" else file
        seconds = time.monotonic() - started
        self.stderr.write(
            f"{name} is complete: {filesizeformat(size)} in {seconds:.1f} s. {CONTENTS_WARNING}", self.style.NOTICE
        )
        for half in HALVES.keys() - settings.SERVE:
            self.stderr.write(
                f"It doesn't contain {HALVES[half]}, which this half of the site lacks. Also back up the other half."
            )

    def _report(self, part: PartSummary) -> None:
        files = "1 file " if part.count == 1 else f"{part.count} files"
        self.stderr.write(f"✓ {part.label:<24}{files:>14}{filesizeformat(part.size):>12}", self.style.SUCCESS)
        if part.missing:
            self.stderr.write(f"  {part.missing} of the {part.label} were deleted during the backup and aren't in it.")
        if part.damaged:
            self.stderr.write(
                f"  {part.damaged} of the {part.label} are damaged on this disk: the content doesn't match the name."
            )
