"""Audit of the installed packages for known vulnerabilities (`make audit`), with pip-audit's default source.

    python -m tests.audit requirements/base.txt requirements/dev.txt

Fails if a package is vulnerable or was skipped. If no advisory source answers, the audit prints a warning and succeeds,
because that isn't a fault of this project. Vulnerabilities that don't affect the project are listed in pyproject.toml,
each with a reason and an expiry date.
"""

import datetime
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The end of pip-audit's output when its source doesn't answer, or answers with something other than advisories.
UNREACHABLE = re.compile(
    r"ConnectionError|Could not connect|Timeout|ProxyError|SSLError|Max retries exceeded|JSONDecodeError|"
    r"ServiceError|is not redirecting properly"
)
NOT_AUDITED = "NOT AUDITED: the advisory source is out of reach"


@dataclass(frozen=True)
class Verdict:
    failed: bool
    text: str


def audit(files: list[str], ignored: list[str]) -> Verdict:
    """Audit every package in the requirement files (pinned and hashed)."""
    with tempfile.TemporaryDirectory() as cache:  # an empty cache, so that no old answer is used
        command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", f"--cache-dir={cache}"]
        command += ["--disable-pip", "--require-hashes", *(f"--requirement={file}" for file in files)]
        command += [f"--ignore-vuln={id}" for id in ignored]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return judge(run.stdout, run.stderr)


def judge(output: str, errors: str) -> Verdict:
    """Return the verdict that follows from pip-audit's answer."""
    try:
        found = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        if UNREACHABLE.search(errors):
            return Verdict(False, f"{NOT_AUDITED} ({last[:300]}).")
        return Verdict(True, f"The audit failed: {last[:300]}")
    skipped = {item["name"]: item["skip_reason"] for item in found if "skip_reason" in item}
    if not found:
        return Verdict(True, "The audit failed: it found no package to ask about.")
    if len(skipped) == len(found) and all("not found" in reason for reason in skipped.values()):
        # If none of the packages is known, the server mirrors packages but has no advisories.
        return Verdict(False, f"{NOT_AUDITED} (what answers in its place knows none of {len(found)} packages).")
    lines = [
        f"{item['name']} {item['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for item in found
        for known in item.get("vulns", [])
    ]
    lines += [f"{name} was skipped: {reason}" for name, reason in skipped.items()]
    if lines:
        return Verdict(True, "\n".join(["The audit failed:", *lines]))
    return Verdict(False, f"Audited: {len(found)} packages, no known vulnerability.")


def ignored(document: str, today: datetime.date) -> list[str]:
    """Return the ids that pyproject.toml ignores on this day.

    Raise ValueError for an entry without a reason or a date, because it couldn't be reviewed later.
    """
    entries = tomllib.loads(document).get("tool", {}).get("audit", {}).get("ignored", [])
    for entry in entries:
        if not entry.get("reason") or not isinstance(entry.get("until"), datetime.date):
            raise ValueError(f"[tool.audit] ignores {entry.get('id')} without a reason, or without a date 'until'.")
    return [entry["id"] for entry in entries if entry["until"] >= today]


def main() -> int:
    """Run the audit. Return the exit status: 1 if action is required."""
    known = ignored((ROOT / "pyproject.toml").read_text(), datetime.datetime.now(datetime.UTC).date())
    verdict = audit(sys.argv[1:], known)
    loud = verdict.failed or verdict.text.startswith(NOT_AUDITED)
    print(f"{'!' * 100}\n{verdict.text}\n{'!' * 100}" if loud else verdict.text, flush=True)
    return int(verdict.failed)


if __name__ == "__main__":
    sys.exit(main())
