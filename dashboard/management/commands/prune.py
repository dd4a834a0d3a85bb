"""`manage.py prune`: show what nothing uses, ask, and free it."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.template.defaultfilters import filesizeformat

from dashboard.ops import prune
from dashboard.ops.backup.create import in_words
from dashboard.ops.prune import Part


class Command(BaseCommand):
    help = "Shows what nothing uses, by kind and size, and frees it when told to. The site may go on running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--yes", action="store_true", help="Free it without asking.")
        choice.add_argument("--dry-run", action="store_true", help="Only show it.")

    def handle(self, *args: Any, yes: bool, dry_run: bool, **options: Any) -> None:
        try:
            if yes or (self._shown_some() and not dry_run and self._agreed()):
                self._show("Freed", prune.free())
        except prune.BackupRuns:
            raise CommandError(
                "Nothing was freed, for a backup is being made or put in place: try again when it is over."
            ) from None
        except ImproperlyConfigured as error:
            raise CommandError(f"Nothing was freed. {error}") from None
        except OSError as error:
            raise CommandError(f"Not all was freed; the rest is for the next time. {in_words(error)}") from None
        except DatabaseError as error:
            raise CommandError(
                f"Nothing was freed, for the database does not say what is used: {str(error).strip()}"
            ) from None

    def _shown_some(self) -> bool:
        unused = prune.look()
        self._show("Nothing uses", unused)
        return any(part.count for part in unused)

    def _agreed(self) -> bool:
        if not sys.stdin.isatty():
            self.stdout.write(
                f"Nothing was freed: there is no terminal to ask on. `{settings.COMMAND} prune --yes` frees it."
            )
            return False
        return input("Free it? [y/N] ").strip().lower() in {"y", "yes"}

    def _show(self, title: str, parts: list[Part]) -> None:
        self.stdout.write(f"{title}:")
        for part in parts:
            self.stdout.write(f"  {part.what:<40}{part.note or _amount(part.count, part.size)}")
        self.stdout.write(f"  {'':<40}{_amount(sum(part.count for part in parts), sum(part.size for part in parts))}")


def _amount(count: int, size: int) -> str:
    return f"{count:>7} {filesizeformat(size).replace(chr(0xA0), ' '):>12}"
