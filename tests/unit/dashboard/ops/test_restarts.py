"""Restarts of programs, counted in the log of the supervisor."""

import time
from pathlib import Path

import pytest

from dashboard.ops.supervisor.restarts import Restarts

NOW = 1_800_000_000.0


def line(seconds_ago: float, text: str, level: str = "WARN") -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW - seconds_ago))
    return f"{at},123 {level} {text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "supervisord.log"


def test_unexpected_exits_of_the_last_hour_are_counted(log: Path) -> None:
    log.write_text(
        line(4000, "exited: worker (exit status 1; not expected)")
        + line(3000, "exited: worker (exit status 1; not expected)")
        + line(2000, "exited: mms-worker (terminated by SIGKILL; not expected)")
        + line(1000, "exited: worker (exit status 0; expected)", "INFO")
        + line(900, "stopped: beat (terminated by SIGTERM)", "INFO")
        + line(800, "exited: service-7-r1 (exit status 3; not expected)")
        + line(750, "exited: gateway-2 (exit status 1; not expected)")
        + line(700, "spawned: 'web' with pid 7", "INFO")
    )
    assert Restarts(log, NOW).counts() == {"gateway-2": 1, "mms-worker": 1, "worker": 2}
    assert Restarts(log, NOW).in_a_loop() == []


def test_a_program_that_fails_repeatedly_is_in_a_crash_loop(log: Path) -> None:
    log.write_text("".join(line(ago, "exited: worker (exit status 1; not expected)") for ago in (50, 35, 20)))
    assert Restarts(log, NOW).in_a_loop() == ["worker"]
    assert Restarts(log, NOW + 30).in_a_loop() == []


def test_a_program_killed_by_another_process_is_not_in_a_crash_loop(log: Path) -> None:
    log.write_text("".join(line(ago, "exited: web (terminated by SIGKILL; not expected)") for ago in range(20)))
    assert Restarts(log, NOW).in_a_loop() == []
    assert Restarts(log, NOW).counts() == {"web": 20}


def test_without_a_supervisor_nothing_is_counted(log: Path) -> None:
    assert Restarts(log, NOW).counts() == {}
