"""Output of a benchmark: the printed table and the file with its figures."""

import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Row of the table: measure, result, target, and whether the target was met (None without a target)."""

    what: str
    seen: str
    target: str
    reached: bool | None = None


def show(title: str, rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    verdict = {True: "reached", False: "**missed**", None: ""}
    lines = [f"### {title}", "", "| What | Measured | Target | |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.seen} | {row.target} | {verdict[row.reached]} |" for row in rows]
    return "\n".join(lines)


def keep(path: Path, rows: list[Row]) -> None:
    """Write the figures as JSON, with a description of the machine."""
    about = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "python": platform.python_version()}
    path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False))
