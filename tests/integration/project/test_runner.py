"""The rules of tests/runner.py and tests/ports.py, tested with nested runs of pytest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.site import OURS, ROOT

MANY = """
import pathlib, time
import pytest

HERE = pathlib.Path(__file__).parent

def note(name, seconds):
    began = time.monotonic()
    time.sleep(seconds)
    (HERE / f"{name}.times").write_text(f"{began} {time.monotonic()}")

@pytest.mark.parametrize("number", range(12))
def test_any(number):
    note(f"any-{number}", 0.1)

@pytest.mark.serial
@pytest.mark.parametrize("number", range(2))
def test_alone(number):
    note(f"alone-{number}", 0.3)
"""


def run(folder: Path, source: str, *options: str) -> dict[str, str]:
    """Run pytest on `source`. Return the outcome of each test by name, and the output under the key ""."""
    path = folder / "test_inner.py"
    path.write_text(source)
    environment = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    plugins = ["-p", "tests.environment", "-p", "tests.runner", "-p", "no:cacheprovider", "-p", "no:django"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        *plugins,
        "-v",
        *options,
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    outcomes = dict(re.findall(r"::(test_\S+) (PASSED|FAILED|SKIPPED)", done.stdout))
    outcomes |= {name: outcome for outcome, name in re.findall(r"(PASSED|FAILED) \S+::(test_[^@\s]+)", done.stdout)}
    return outcomes | {"": done.stdout}


@pytest.mark.slow
def test_a_test_over_the_limit_fails_unless_it_is_marked_slow(tmp_path: Path) -> None:
    source = """
import time, pytest
def test_quick(): pass
def test_long(): time.sleep(0.5)
@pytest.mark.slow
def test_marked(): time.sleep(0.5)
"""
    found = run(tmp_path, source, "--limit=0.01")
    said = found.pop("")
    assert found == {"test_quick": "PASSED", "test_long": "FAILED", "test_marked": "PASSED"}
    assert "test_long takes 0.5 s: mark it slow or make it faster." in said
    assert "1 failed, 2 passed" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ([], {"test_short"}),
        (["--nightly"], {"test_short", "test_long"}),
        (["-m", "nightly"], {"test_long"}),
        (["-m", "not slow"], {"test_short"}),
    ],
)
def test_nightly_tests_run_only_on_request(tmp_path: Path, options: list[str], ran: set[str]) -> None:
    source = "import pytest\ndef test_short(): pass\n@pytest.mark.nightly\ndef test_long(): pass\n"
    assert run(tmp_path, source, *options).keys() - {""} == ran


@pytest.mark.slow
def test_no_test_runs_in_parallel_with_a_serial_test(tmp_path: Path) -> None:
    found = run(tmp_path, MANY, "--numprocesses=3", "--dist=loadgroup", "--no-loadscope-reorder", "--limit=0")
    assert "14 passed" in found[""]
    assert len(set(re.findall(r"\[(gw\d)\] .* PASSED \S+::test_alone", found[""]))) == 1
    times = {path.stem: [float(word) for word in path.read_text().split()] for path in tmp_path.glob("*.times")}
    others = [span for name, span in times.items() if name.startswith("any")]
    assert len(others) == 12
    for number in range(2):
        began, ended = times[f"alone-{number}"]
        assert [span for span in others if span[0] < ended and began < span[1]] == []
    # The other tests ran in parallel.
    assert any(one[0] < two[0] < one[1] for one in others for two in others)


def test_no_two_processes_get_the_same_port() -> None:
    code = "from tests.ports import free_port; print(*(free_port() for _ in range(300)), flush=True); input()"
    command = [sys.executable, "-c", code]
    mine = {free_port() for _ in range(300)}
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    given = [port for process in running if process.stdout for port in process.stdout.readline().split()]
    for process in running:
        process.communicate("\n", timeout=20)
    assert len(mine) == 300
    assert len(set(given) | {str(port) for port in mine}) == len(given) + 300 == 1200
