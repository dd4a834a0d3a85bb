"""`manage.py doctor`: check the installation and explain how to fix each problem. Works when nothing else does."""

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
from dashboard.ops.doctor import CheckContext, Finding, State

MARKS = {State.OK: "✓", State.WARNING: "!", State.FAILED: "✗", State.UNKNOWN: "?"}
PART_WIDTH = 16  # characters
MAX_WIDTH = 120  # characters


class Command(BaseCommand):
    help = "Check the installation end to end and print how to fix each problem. Exits with status 1 if a check failed."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add --json."""
        parser.add_argument("--json", action="store_true", help="Print the findings as JSON.")

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        """Print the findings. Exit with status 1 if a check failed."""
        if verbosity < 2:
            logging.disable(logging.CRITICAL)  # the findings contain the same information
        started = time.monotonic()
        findings = doctor.run_checks(CheckContext(thorough=True))
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(findings), indent=2, ensure_ascii=False))
        else:
            self.stdout.write("\n".join(_table(findings)))
            self.stdout.write(f"\n{doctor.summary(findings)} ({time.monotonic() - started:.1f} s).")
        if any(finding.state == State.FAILED for finding in findings):
            raise SystemExit(1)


def _as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for scripts. These keys are an interface."""
    return {
        "ok": all(finding.state != State.FAILED for finding in findings),
        "findings": [
            {
                "part": finding.part,
                "state": finding.state,
                "says": finding.message,
                "advice": finding.advice,
                "page": finding.page,
            }
            for finding in findings
        ],
    }


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of the findings, grouped by part, each with its advice below."""
    width = min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns)
    for part, group in doctor.group_by_part(findings).items():
        label = part
        for finding in group:
            yield from _wrap(f"{MARKS[finding.state]} {label:<{PART_WIDTH}}", finding.message, width)
            if finding.advice:
                link = f" See {settings.SITE_ORIGIN}{finding.page}" if finding.page else ""
                yield from _wrap(f"  {'':<{PART_WIDTH}}", f"→ {finding.advice}{link}", width)
            label = ""  # only on the first line of its group


def _wrap(head: str, text: str, width: int) -> list[str]:
    indent = " " * (PART_WIDTH + 3)
    return textwrap.wrap(
        text, width, initial_indent=f"{head} ", subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
