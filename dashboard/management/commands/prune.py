"""`manage.py prune`: list unused files, and delete them after confirmation."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.template.defaultfilters import filesizeformat

from dashboard.ops import prune
from dashboard.ops.backup.create import user_message
from dashboard.ops.prune import UnusedFiles


class Command(BaseCommand):
    help = "Show unused data by kind and size, and delete it after confirmation. The site can keep running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        choice = parser.add_mutually_exclusive_group()
        choice.add_argument("--yes", action="store_true", help="Delete without asking.")
        choice.add_argument("--dry-run", action="store_true", help="Only show what would be deleted.")

    def handle(self, *args: Any, yes: bool, dry_run: bool, **options: Any) -> None:
        try:
            if yes or (self._show_unused() and not dry_run and self._confirm()):
                self._show("Deleted", prune.prune())
        except prune.BackupRunningError:
            raise CommandError(
                "Nothing was deleted, because a backup or restore is running. Try again when it has finished."
            ) from None
        except ImproperlyConfigured as error:
            raise CommandError(f"Nothing was deleted. {error}") from None
        except OSError as error:
            raise CommandError(
                f"Not everything was deleted. Run it again for the rest. {user_message(error)}"
            ) from None
        except DatabaseError as error:
            raise CommandError(
                f"Nothing was deleted, because the database can't be read: {str(error).strip()}"
            ) from None

    def _show_unused(self) -> bool:
        """List unused files. Return True if there are any."""
        unused = prune.preview()
        self._show("Unused", unused)
        return any(part.count for part in unused)

    def _confirm(self) -> bool:
        """Ask on a terminal whether to delete the files."""
        if not sys.stdin.isatty():
            self.stdout.write(
                f"Nothing was deleted: there is no terminal to ask on. Use `{settings.COMMAND} prune --yes`."
            )
            return False
        return input("Delete it? [y/N] ").strip().lower() in {"y", "yes"}

    def _show(self, title: str, parts: list[UnusedFiles]) -> None:
        self.stdout.write(f"{title}:")
        for part in parts:
            self.stdout.write(f"  {part.label:<40}{part.note or _amount(part.count, part.size)}")
        count, size = sum(part.count for part in parts), sum(part.size for part in parts)
        self.stdout.write(f"  {'total':<40}{_amount(count, size)}")


def _amount(count: int, size: int) -> str:
    return f"{count:>7} {filesizeformat(size).replace(chr(0xA0), ' '):>12}"
