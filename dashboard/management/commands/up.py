"""`manage.py up`: run the whole site in the foreground until Ctrl-C."""

import fcntl
import os
import socket
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from dashboard.auth import setup_link
from dashboard.ops.startup import banner, bundled_account, data_dir, prepare
from dashboard.ops.supervisor import programs
from mms.operations import builds
from mms.services.engine import process_engine


class Command(BaseCommand):
    help = "Prepare the site, then run all of it until Ctrl-C or SIGTERM."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--logs", action="store_true", help="Write the programs' logs to the terminal instead of files."
        )

    def handle(self, *args: Any, logs: bool, **options: Any) -> None:
        data_dir.restrict_permissions()
        lock = _lock_data_dir()
        _require_free_port("PORT")
        if "mms" in settings.SERVE:
            _require_free_port("GATEWAY_PORT")
        try:
            config = programs.write_config(logs_to_terminal=logs)
            prepare.clear_temporary_files()
            prepare.prepare()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except OperationalError as error:
            raise CommandError(f"The database isn't responding: {error}") from None
        if "mms" in settings.SERVE:
            bundled_account.ensure()
            builds.vacuum()
            process_engine().drop_stale()
        invitation = self.invitation()
        connections.close_all()
        banner.start(invitation, "here" if logs else f"in {settings.LOG_DIR}", keep_open=lock)
        command = programs.command(config)
        # This process becomes the supervisor, which saves memory and receives Ctrl-C directly.
        os.execve(command[0], command, programs.environment())  # noqa: S606 - no shell wanted

    def invitation(self) -> str:
        """Return what to print about signing in once the site works."""
        return setup_link.startup_message(on_terminal=sys.stdout.isatty())


def _lock_data_dir() -> int:
    """Lock DATA_DIR and return the descriptor. It stays open in the supervisor, so the lock lasts until that exits."""
    descriptor = os.open(settings.RUN_DIR / "up.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CommandError(
            f"The site is already running with the data in {settings.DATA_DIR}. Stop it there first."
        ) from None
    os.set_inheritable(descriptor, True)
    return descriptor


def _require_free_port(setting: str) -> None:
    family = socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = getattr(settings, setting)
        try:
            probe.bind((settings.HOST, port))
        except OSError as error:
            reason = error.strerror or error
            raise CommandError(
                f"Can't use HOST={settings.HOST} {setting}={port}: {reason}. Choose another with {setting}=…"
            ) from None
