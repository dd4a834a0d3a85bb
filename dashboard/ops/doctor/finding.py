"""What a check says: a sentence on what is the case, with its figures, and one on what to do about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.template.defaultfilters import filesizeformat

from dashboard.templatetags.page import UNITS


class State(StrEnum):
    """How bad it is, worst first."""

    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody can tell at the moment
    WARNING = "warning"
    OK = "ok"


WORDS = {State.FAILED: "failed", State.UNKNOWN: "not known", State.WARNING: "to look at", State.OK: "in order"}


@dataclass(frozen=True)
class Finding:
    """`part` is what it is about, `says` one sentence, `advice` what to do; commands stand between backquotes.

    `page` is the path of the page of this site where it is done, if there is one.
    """

    part: str
    state: State
    says: str
    advice: str = ""
    page: str = ""


@dataclass(frozen=True)
class Asked:
    """For whom and how thoroughly. `accounts`: only these may be named (primary keys); None: everything may."""

    accounts: frozenset[int] | None = None
    thorough: bool = False  # also what takes seconds: real calls, real tasks, every page of the database


def ok(part: str, says: str) -> Finding:
    return Finding(part, State.OK, says)


def warning(part: str, says: str, advice: str, page: str = "") -> Finding:
    return Finding(part, State.WARNING, says, advice, page)


def failed(part: str, says: str, advice: str, page: str = "") -> Finding:
    return Finding(part, State.FAILED, says, advice, page)


def unknown(part: str, says: str, advice: str = "") -> Finding:
    return Finding(part, State.UNKNOWN, says, advice)


def by_part(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings under what they are about, both in the order in which they came first."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.part, []).append(finding)
    return found


def summary(findings: Iterable[Finding]) -> str:
    """ "1 failed, 2 to look at, 20 in order"."""
    counts = Counter(finding.state for finding in findings)
    return ", ".join(f"{counts[state]} {WORDS[state]}" for state in State if counts[state])


def size(count: float) -> str:
    """A number of bytes as people say it: "1.2 GB"."""
    return filesizeformat(count).replace("\xa0", " ")


def span(seconds: float) -> str:
    """A length of time as people say it: "4 s", "3 min", "2 d"."""
    unit, length = next(((unit, length) for unit, length in UNITS if seconds >= length), ("s", 1))
    return f"{seconds // length:.0f} {unit}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def many(count: int, noun: str) -> str:
    """ "1 task", "2 tasks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")
