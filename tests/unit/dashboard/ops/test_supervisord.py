"""Private names of supervisor that supervisord.py changes, and its assumptions about them.

When one of these tests fails after an upgrade, compare supervisord.py with the new release before you change the test.
"""

import inspect
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from supervisor import loggers, options, supervisord

from dashboard.ops.supervisor import supervisord as ours
from tests.site import ROOT

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the changes for one test."""
    for owner, name in (
        (supervisord, "ServerOptions"),
        (loggers.Handler, "handleError"),
        (loggers.RotatingFileHandler, "doRollover"),
        (options, "glob"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # so that it is restored
    ours.patch()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers of the test process."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_installed_release_is_the_pinned_one() -> None:
    pins = (ROOT / "requirements/base.txt").read_text().split()
    assert f"supervisor=={version('supervisor')}" in pins


def test_supervisord_creates_its_options_by_the_replaced_name() -> None:
    assert "options = ServerOptions()" in inspect.getsource(supervisord.main)
    assert supervisord.ServerOptions is ours.Options


def test_included_files_are_found_in_a_folder_with_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] *?" / "services"
    folder.mkdir(parents=True)
    (folder / "one.conf").touch()
    assert options.glob.glob(str(folder / "*.conf")) == [str(folder / "one.conf")]
    assert "filenames = glob.glob(pattern)" in inspect.getsource(options.ServerOptions.read_config)


@pytest.mark.parametrize("name", ["setsignals", "setpgrp"])
def test_the_overridden_methods_take_no_arguments(name: str) -> None:
    assert list(inspect.signature(getattr(options.ServerOptions, name)).parameters) == ["self"]


def test_a_closed_terminal_counts_as_a_request_to_stop(handlers: None) -> None:
    made = ours.Options()
    made.setsignals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert made.get_signal() == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGUSR2)
    assert made.get_signal() == signal.SIGUSR2


def test_a_child_becomes_the_leader_of_its_process_group() -> None:
    assert "os.setpgrp()" in inspect.getsource(options.ServerOptions.setpgrp)


def log(path: Path) -> loggers.Logger:
    made = loggers.Logger()
    made.handlers = [loggers.RotatingFileHandler(str(path), maxBytes=100, backupCount=1)]
    return made


def test_a_line_that_cannot_be_written_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = log(tmp_path / "program.log")
    with Path("/dev/full").open("ab", buffering=0) as full:
        logger.handlers[0].stream = full
        logger.handlers[0].maxBytes = 0
        logger.info("a line")
    assert capsys.readouterr().err == ""


def test_logging_continues_after_a_rollover_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program.log"
    logger = log(path)

    def fail(*_: str) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loggers.RotatingFileHandler, "removeAndRename", fail)
        logger.info("x" * 200)
        logger.info("written to the same file")
    logger.info("y")
    logger.handlers[0].stream.flush()
    assert "written to the same file" in path.with_name("program.log.1").read_text()


def test_programs_start_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """supervisord starts programs after the first poll of its loop, which otherwise waits for a second."""
    timeouts: list[float] = []
    monkeypatch.setattr(options.poller.Poller, "poll", lambda _, timeout: timeouts.append(timeout) or ([], []))
    poller = ours.Options().poller
    for _ in range(3):
        assert poller.poll(1) == ([], [])
    assert timeouts == [0, 1, 1]
    loop = inspect.getsource(supervisord.Supervisor.runforever)
    assert loop.index("self.options.poller.poll(timeout)") < loop.index("group.transition()")
