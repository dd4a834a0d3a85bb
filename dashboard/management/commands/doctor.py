"""`manage.py doctor`: is everything in order, and if not, what is to be done? Works whatever else does not."""

import json
import logging
import shutil
import textwrap
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from dashboard.ops import doctor
from dashboard.ops.doctor import Asked, Finding, State

MARKS = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗", State.UNKNOWN: "?"}
COLUMN = 16  # characters for what a line is about
WIDEST = 120


class Command(BaseCommand):
    help = "Checks the installation end to end and says what to do. Exit status 1 when something has failed."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Write the findings as JSON.")

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        if verbosity < 2:
            logging.disable(logging.CRITICAL)  # whatever they would say is a finding
        started = time.monotonic()
        findings = doctor.examine(Asked(thorough=True))
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(findings), indent=2, ensure_ascii=False))
        else:
            self.stdout.write("\n".join(_table(findings)))
            self.stdout.write(f"\n{doctor.summary(findings)} ({time.monotonic() - started:.1f} s).")
        if any(finding.state == State.FAILED for finding in findings):
            raise SystemExit(1)


def _as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    ok = all(finding.state != State.FAILED for finding in findings)
    return {"ok": ok, "findings": [vars(finding) for finding in findings]}


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    """A line per finding, under what it is about; advice below what is not in order."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    for named, about in doctor.by_part(findings).items():
        for finding in about:
            yield from _lines(f"{MARKS[finding.state]} {named:<{COLUMN}}", finding.says, width)
            if finding.advice:
                where = f" See {settings.SITE_URL}{finding.page}" if finding.page else ""
                yield from _lines(f"  {'':<{COLUMN}}", f"→ {finding.advice}{where}", width)
            named = ""


def _lines(head: str, text: str, width: int) -> list[str]:
    indent = " " * (COLUMN + 3)
    return textwrap.wrap(
        text, width, initial_indent=f"{head} ", subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
