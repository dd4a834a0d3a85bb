"""`manage.py run NAME`: run one program of the site in the foreground, as in a container."""

import os
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections

from dashboard.ops.startup import data_dir, prepare
from dashboard.ops.supervisor import programs


class Command(BaseCommand):
    help = "Prepare the site, then run one of its programs: gateway, web, worker, mms-worker or beat."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="gateway, web, worker, mms-worker or beat")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        data_dir.restrict_permissions()
        known = {program.name: program for program in programs.programs()}
        if name not in known:
            raise CommandError(f"{name} doesn't run with these settings. Available: {', '.join(known)}.")
        try:
            prepare.prepare(serves_pages=name == "web")
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        except OperationalError as error:
            raise CommandError(f"The database isn't responding: {error}") from None
        connections.close_all()
        command = known[name].command
        os.execve(command[0], command, programs.environment())  # noqa: S606 - no shell wanted
