"""`manage.py restore FILE`: restore a backup on this machine or another."""

import sys
import time
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from dashboard import environment
from dashboard.ops.backup.archive import DamagedArchiveError
from dashboard.ops.backup.create import BackupError, private_files, user_message
from dashboard.ops.backup.restore import RestoreResult, restore
from dashboard.ops.backup.restore_database import RestoreError


class Command(BaseCommand):
    help = "Restore a backup. The site must be stopped."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="The file that `backup` wrote; - for standard input.")
        parser.add_argument("--replace", action="store_true", help="Move existing data into a folder and replace it.")

    def handle(self, *args: Any, file: str, replace: bool, **options: Any) -> None:
        started = time.monotonic()
        try:
            with (
                private_files(),
                nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as source,
            ):
                result = restore(source, file, replace)
        except (RestoreError, BackupError) as error:
            raise CommandError(str(error)) from None
        except DamagedArchiveError as error:
            raise CommandError(f"{file} isn't a complete backup. {error} Nothing was changed.") from None
        except OSError as error:
            raise CommandError(user_message(error)) from None
        except DatabaseError as error:
            raise CommandError(f"Couldn't restore the database: {str(error).strip().splitlines()[0]}") from None
        self._report(result, time.monotonic() - started)

    def _report(self, result: RestoreResult, seconds: float) -> None:
        rows = "its files" if result.rows is None else f"{result.rows} rows and its files"
        self.stdout.write(f"Restored the backup of {result.made_at:%Y-%m-%d %H:%M} UTC: {rows}, in {seconds:.1f} s.")
        if result.uncertain:
            self.stdout.write(
                f"{result.uncertain} operations were queued then. Before it sends anything, the dashboard "
                "checks whether they were sent later."
            )
        if result.replaced:
            self.stdout.write(
                f"The previous data is in {result.replaced}. It contains secrets. Delete it when you no longer need it."
            )
        if environment.is_set("REDIS_URL"):
            self.stdout.write(
                "Before you start the site, empty the Redis at REDIS_URL (redis-cli flushdb), because it has old data."
            )
        self.stdout.write(f"Start the site now, for example with `{settings.START_COMMAND}`.")
