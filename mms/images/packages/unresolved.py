"""Explanation of all requirements that can't be resolved, one by one.

uv stops at the first problem. This module asks it about each requirement, and for the newest version with a wheel.
"""

import re
import time
from collections.abc import Callable, Iterator

MAX_REQUIREMENTS = 200  # that are examined
MAX_SECONDS = 60.0
MAX_REASON_CHARS = 400
UNRESOLVED = "No solution found when resolving dependencies"  # begins uv's message
_NAME = re.compile(r"[a-z0-9-]+")
_PIN = re.compile(r"^[a-z0-9-]+==(\S+)", re.MULTILINE)

# Resolves one line, with or without its dependencies. Returns the lock, or "" and uv's message.
Resolve = Callable[[str, bool], tuple[str, str]]


def explain(reason: str, lines: list[str], resolve: Resolve, python: str) -> str:
    """Return a message for uv's `reason`, which begins with UNRESOLVED, that names all invalid lines."""
    problems = list(_problems(lines, resolve, python))
    if not problems:
        note = f"The versions are for Python {python}, and only wheels are installed."
        return f"{reason}\n{note} Change the versions in the requirements, then build again."
    found = "\n".join(f"- {problem}" for problem in problems)
    start = f"{reason}\n" if len(reason) <= MAX_REASON_CHARS else f"{UNRESOLVED}; the build log has uv's explanation.\n"
    return f"{start}Requirements without a wheel for Python {python}:\n{found}\nChange them, then build again."


def _problems(lines: list[str], resolve: Resolve, python: str) -> Iterator[str]:
    """Yield a description of each line that can't be installed on its own."""
    deadline = time.monotonic() + MAX_SECONDS
    for number, line in enumerate(line.partition(" --hash=")[0] for line in lines):
        if number >= MAX_REQUIREMENTS or time.monotonic() > deadline:
            yield f"{len(lines) - number} more requirements weren't examined"
            return
        if problem := _problem(line, resolve, python):
            yield problem


def _problem(line: str, resolve: Resolve, python: str) -> str:
    """Return why the requirement can't be installed; "" if it can."""
    lock, reason = resolve(line, False)
    if not lock and not reason:  # its marker excludes this environment
        return ""
    if not lock:
        return f"{line}: {_own_problem(line, reason, resolve, python)}"
    reason = resolve(line, True)[1]
    if UNRESOLVED not in reason:
        return ""
    needed = reason.removeprefix(UNRESOLVED).removeprefix(": ").partition("\n")[0][:MAX_REASON_CHARS]
    return f"{line}: a package that it needs can't be installed. {needed}"


def _own_problem(line: str, reason: str, resolve: Resolve, python: str) -> str:
    match = _NAME.match(line)
    name = match[0] if match else line
    if f"{name} was not found" in reason:
        return "the package index doesn't have it. Check the name"
    newest = _PIN.search(resolve(name, False)[0]) if name != line else None
    if newest:
        missing = "there is no such version" if "there is no version of" in reason else "no wheel"
        return f"{missing}; the newest version with a wheel is {newest[1]}"
    return f"no version has a wheel for Python {python}, and source distributions aren't built"
