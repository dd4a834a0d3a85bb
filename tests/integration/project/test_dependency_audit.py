"""The dependency audit with the real pip-audit: failures, successes, and unavailable sources."""

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.audit import NOT_AUDITED, ROOT, ignored, judge
from tests.doubles import advisories
from tests.ports import free_port

HASH = "sha256:" + "0" * 64
TODAY = datetime.date(2030, 1, 1)


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"{pin} \\\n    --hash={HASH}\n" for pin in ("good==1.0", "other==2.0", "third==3.0")))
    return path


def run(requirements: Path, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.audit", str(requirements)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_packages_without_known_vulnerabilities_pass(requirements: Path, tmp_path: Path) -> None:
    with advisories.running(tmp_path, lambda name, version: (200, [])) as environment:
        assert run(requirements, environment) == (0, "Audited: 3 packages, no known vulnerability.\n")


def test_a_known_vulnerability_fails_and_is_reported_with_its_fix(requirements: Path, tmp_path: Path) -> None:
    def knows(name: str, version: str) -> tuple[int, list[Any]]:
        return 200, [advisories.vulnerability("TEST-2030-1", "2.1")] if (name, version) == ("other", "2.0") else []

    with advisories.running(tmp_path, knows) as environment:
        code, said = run(requirements, environment)
    assert code == 1
    assert "other 2.0: TEST-2030-1, mended in 2.1" in said


def test_a_package_that_was_skipped_fails(requirements: Path, tmp_path: Path) -> None:
    with advisories.running(tmp_path, lambda name, version: (404 if name == "third" else 200, [])) as environment:
        code, said = run(requirements, environment)
    assert code == 1
    assert "third was skipped" in said
    assert NOT_AUDITED not in said


def test_a_source_without_any_advisories_does_not_count(requirements: Path, tmp_path: Path) -> None:
    """A package mirror, for example, has no advisories."""
    with advisories.running(tmp_path, lambda name, version: (404, [])) as environment:
        code, said = run(requirements, environment)
    assert code == 0
    assert f"{NOT_AUDITED} (what answers in its place knows none of 3 packages)" in said


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_source_counts_as_unreachable(requirements: Path, tmp_path: Path, status: int) -> None:
    with advisories.running(tmp_path, lambda name, version: (status, [])) as environment:
        code, said = run(requirements, environment)
    assert code == 0
    assert NOT_AUDITED in said


def test_without_a_source_a_warning_is_printed(requirements: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    code, said = run(requirements, {"HTTPS_PROXY": nowhere, "https_proxy": nowhere, "NO_PROXY": "", "no_proxy": ""})
    assert code == 0
    assert NOT_AUDITED in said
    assert said.startswith("!" * 100)


@pytest.mark.parametrize("text", ["good==1.0\n", "good>=1.0\n", "-r nothing.txt\n", ""])
def test_a_requirement_file_that_cannot_be_audited_fails(requirements: Path, tmp_path: Path, text: str) -> None:
    requirements.write_text(text)
    with advisories.running(tmp_path, lambda name, version: (200, [])) as environment:
        code, said = run(requirements, environment)
    assert code == 1, said
    assert "The audit failed" in said


def test_unexpected_output_fails() -> None:
    assert judge("", "Traceback …\nKeyError: 'x'").failed
    assert judge("", "").failed
    assert judge("{}", "").failed


def test_an_ignored_vulnerability_needs_a_reason_and_expires() -> None:
    entry = '[[tool.audit.ignored]]\nid = "TEST-1"\nreason = "we never call it"\nuntil = 2030-01-01\n'
    assert ignored(entry, TODAY) == ["TEST-1"]
    assert ignored(entry, TODAY + datetime.timedelta(days=1)) == []
    assert ignored("[tool]", TODAY) == []
    for line in ('reason = "we never call it"\n', "until = 2030-01-01\n"):
        with pytest.raises(ValueError, match="TEST-1 without a reason"):
            ignored(entry.replace(line, ""), TODAY)


def test_the_ignored_vulnerabilities_of_this_project_are_valid() -> None:
    assert isinstance(ignored((ROOT / "pyproject.toml").read_text(), TODAY), list)
