"""Output of a benchmark: the printed table, the file with its figures, and the documentation page made from it."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
START, END = "<!-- table -->\n", "<!-- end of table -->\n"
NOT_CODE = [":!docs", ":!*.md", ":!tests", ":!.github"]
VERDICT = {True: "reached", False: "**missed**", None: ""}


@dataclass(frozen=True)
class Row:
    """Row of the table: measure, result, target, and whether the target was met (None without a target)."""

    what: str
    seen: str
    target: str
    reached: bool | None = None


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| What | Measured | Target | |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.seen} | {row.target} | {VERDICT[row.reached]} |" for row in rows]
    return "\n".join(lines)


def show(title: str, rows: list[Row]) -> str:
    """Return the rows as a Markdown table with a heading and the number of reached targets."""
    rated = [row for row in rows if row.reached is not None]
    reached = sum(row.reached is True for row in rated)
    return f"### {title}\n\n{table(rows)}\n\nReached {reached} of {len(rated)} targets."


def describe_machine() -> dict[str, str]:
    """Return what the figures depend on: the machine, the versions and the commit."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("" if not _git("status", "--porcelain") else " + changes"),
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def sentence(about: Mapping[str, str]) -> str:
    """Return the description of the machine as text."""
    return (
        f"Measured {about['at']} at commit {about['commit']}: {about['cores']} cores ({about['processor']}), "
        f"{about['memory']}, {about['kernel']}, Python {about['python']}; load average before the run {about['load']}."
    )


def keep(path: Path, about: Mapping[str, str], rows: list[Row], *, is_complete: bool) -> None:
    """Write the figures as JSON. `is_complete`: the run had every group, with full sizes."""
    kept = {"about": dict(about), "complete": is_complete, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def write_page(kept: Path, page: Path) -> None:
    """Replace the table of the page by the figures of a kept run.

    Raise ValueError if the run was a quick or partial one, or if the measured code isn't the current code of the
    repository.
    """
    run: dict[str, Any] = json.loads(kept.read_text())
    if not run["complete"]:
        raise ValueError(f"{kept} has only some groups, or quick figures. Run make bench KEEP={kept} first.")
    commit = run["about"]["commit"]
    if " " in commit or _git("diff", "--name-only", commit, "--", ".", *NOT_CODE):
        raise ValueError(f"The code isn't the measured one ({commit}). Run make bench KEEP={kept} again.")
    before, after = page.read_text().split(START)[0], page.read_text().split(END)[1]
    rows = [Row(**row) for row in run["rows"]]
    about = _wrap(sentence(run["about"]))
    page.write_text(f"{before}{START}{about}\n\n{table(rows)}\n{END}{after}")


def _wrap(text: str, width: int = 100) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
