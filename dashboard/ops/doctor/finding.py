"""The result of a check, and helpers for formatting its message."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.template.defaultfilters import filesizeformat

from dashboard.catalog.durations import UNITS


class State(StrEnum):
    """The severity of a finding, worst first."""

    FAILED = "failed"
    UNKNOWN = "unknown"  # the check couldn't run
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True)
class Finding:
    """One result. `message` describes it and `advice` the fix, both in full sentences with commands in backquotes.

    `part` names the checked part. `page` is the path of the page where the problem can be fixed, if there is one.
    """

    part: str
    state: State
    message: str
    advice: str = ""
    page: str = ""


@dataclass(frozen=True)
class CheckContext:
    """The scope of a check.

    `accounts`: primary keys of the hosting accounts that may be named, or None for all. `thorough`: include checks
    that take seconds: calls to servers, round trips of tasks, and reading every page of the database.
    """

    accounts: frozenset[int] | None = None
    thorough: bool = False


def ok(part: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(part, State.OK, message)


def warning(part: str, message: str, advice: str, page: str = "") -> Finding:
    """Return a finding about something that works but should be changed."""
    return Finding(part, State.WARNING, message, advice, page)


def failed(part: str, message: str, advice: str, page: str = "") -> Finding:
    """Return a finding about something that doesn't work."""
    return Finding(part, State.FAILED, message, advice, page)


def unknown(part: str, message: str, advice: str = "") -> Finding:
    """Return a finding about something that couldn't be checked."""
    return Finding(part, State.UNKNOWN, message, advice)


def group_by_part(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Group the findings by part. Parts and findings are in order of first appearance."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.part, []).append(finding)
    return groups


def summary(findings: Iterable[Finding]) -> str:
    """Return the number of findings per state: "1 failed, 2 warnings, 20 OK"."""
    counts = Counter(finding.state for finding in findings)
    labels = {
        State.FAILED: "failed",
        State.UNKNOWN: "unknown",
        State.WARNING: "warning" if counts[State.WARNING] == 1 else "warnings",
        State.OK: "OK",
    }
    return ", ".join(f"{counts[state]} {labels[state]}" for state in State if counts[state])


def file_size(count: float) -> str:
    """Format a number of bytes: "1.2 GB"."""
    return filesizeformat(count).replace("\xa0", " ")


def duration(seconds: float) -> str:
    """Format a duration in its largest unit: "4 s", "3 min", "2 d"."""
    unit, length = next(((unit, length) for unit, length in UNITS if seconds >= length), ("s", 1))
    return f"{seconds // length:.0f} {unit}"


def milliseconds(seconds: float) -> str:
    """Format a short duration in milliseconds: "0.4 ms", "27 ms"."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def pluralize(count: int, noun: str) -> str:
    """Format a number with its noun: "1 task", "2 tasks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")
