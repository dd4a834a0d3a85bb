"""`manage.py restore FILE`: puts a backup in place, here or on another machine."""

import os
import sys
import time
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from dashboard.ops.backup.archive import Damaged
from dashboard.ops.backup.create import Failed, for_the_owner_alone, in_words
from dashboard.ops.backup.restore import Done, restore


class Command(BaseCommand):
    help = "Puts the data of a backup in place. The site must not run."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="What `backup` wrote; - is the standard input.")
        parser.add_argument("--replace", action="store_true", help="Move the data that is here aside.")

    def handle(self, *args: Any, file: str, replace: bool, **options: Any) -> None:
        started = time.monotonic()
        try:
            with (
                for_the_owner_alone(),
                nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as source,
            ):
                done = restore(source, file, replace)
        except Failed as error:
            raise CommandError(str(error)) from None
        except Damaged as error:
            raise CommandError(f"{file} is no whole backup: {error} Nothing was changed.") from None
        except OSError as error:
            raise CommandError(in_words(error)) from None
        except DatabaseError as error:
            raise CommandError(f"The database could not be restored: {str(error).strip().splitlines()[0]}") from None
        self._say(done, time.monotonic() - started)

    def _say(self, done: Done, seconds: float) -> None:
        rows = "its files" if done.rows is None else f"{done.rows} rows and its files"
        self.stdout.write(f"The backup of {done.made_at:%Y-%m-%d %H:%M} UTC is in place: {rows}, in {seconds:.1f} s.")
        if done.in_doubt:
            self.stdout.write(
                f"{done.in_doubt} operations were waiting to be sent then. Whether they were sent afterwards is looked "
                "into before anything is sent."
            )
        if done.aside:
            self.stdout.write(
                f"What was here is in {done.aside}. It holds secrets; delete it when you need it no more."
            )
        if os.environ.get("REDIS_URL"):
            self.stdout.write(
                "Empty the Redis of REDIS_URL (redis-cli flushdb) before the start: it knows the old data."
            )
        self.stdout.write(f"Start the site now, for instance with `{settings.START_COMMAND}`.")
