"""Pytest plugin that selects, groups and limits tests. See docs/reference/testing.md.

- `nightly` tests run with --nightly, when -m names them, or when their node id is given.
- `serial` tests run while no other test does, although the rest runs in parallel.
- A test that isn't marked `slow` may take two seconds; a slower one fails.
"""

import fcntl
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.environment import RUN, WORKER
from tests.support.clock import stretch

SLOWER_ALLOWED = {"slow", "nightly"}
GROUPS = "groups.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("this project")
    group.addoption("--nightly", action="store_true", help="run the tests marked nightly, too")
    group.addoption(
        "--limit",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="fail tests that take longer and aren't marked slow (default: 2; 0: no limit)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Shorten a worker's temporary folder (popen-gw1): the path of a Unix socket has at most 107 bytes."""
    if WORKER and config.option.basetemp:
        config.option.basetemp = str(Path(config.option.basetemp).with_name(WORKER.removeprefix("g")))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect nightly tests unless they were asked for, and group and order the rest for the workers."""
    _deselect_nightly(config, items)
    if WORKER:
        items.sort(key=_position)
        _write_groups({item.nodeid: group for item in items if (group := _group(item))})


def _deselect_nightly(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.nightly or "nightly" in config.option.markexpr:
        return
    named = tuple(argument for argument in config.args if "::" in argument)
    deselected = [item for item in items if item.get_closest_marker("nightly") and not item.nodeid.startswith(named)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


# --- which tests share a worker -----------------------------------------------------------------------------------


# Fixtures of a session or package that cost seconds: one worker runs all tests that use them.
EXPENSIVE = {
    "site": "site",
    "own_site": "contract",
    "running": "journeys",
    "browser": "browser",
    "postgresql": "postgresql",
}


def _group(item: pytest.Item) -> str:
    """Return the group that must share a worker with `item`, or "" if it may run on any.

    A group is a file whose tests share a fixture, or all tests that share an expensive one.
    """
    if item.get_closest_marker("serial"):
        return "serial"
    # Not in pytest's public types.
    known: dict[str, Any] = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
    scopes = {name: {found.scope for found in definitions if found.baseid} for name, definitions in known.items()}
    for name, group in EXPENSIVE.items():
        if scopes.get(name, set()) & {"session", "package"}:
            return group
    return item.nodeid.split("::")[0] if any(found & {"module", "package"} for found in scopes.values()) else ""


def _write_groups(groups: dict[str, str]) -> None:
    """Send the groups to the process that distributes the tests. Every worker sends the same groups."""
    partial = RUN / f"groups.{WORKER}"
    partial.write_text(json.dumps(groups))
    partial.rename(RUN / GROUPS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute groups instead of single tests.

    `--dist loadgroup` of pytest-xdist appends the group to the id of a test. This has no effect with pytest 9.2 and
    pytest-xdist 3.8.
    """
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        groups: dict[str, str] = {}

        def schedule(self) -> None:
            if not self.groups:
                self.groups = json.loads((RUN / GROUPS).read_text())
            super().schedule()

        def _split_scope(self, nodeid: str) -> str:
            return self.groups.get(nodeid, nodeid)

    return GroupScheduling(config, log)


def _position(item: pytest.Item) -> int:
    """Return the position of `item` in the run: the slowest tests start first."""
    if item.get_closest_marker("serial"):
        return 0
    if item.get_closest_marker("nightly"):
        return 1
    return 2 if item.get_closest_marker("slow") else 3


# --- tests that measure time run alone ----------------------------------------------------------------------------


class Room:
    """Lock between the workers of one run: exclusive for serial tests, shared for all others.

    Each test passes a gate first. A serial test holds the gate until it has the lock, so new tests can't starve it.
    """

    def __init__(self, folder: Path) -> None:
        self._gate, self._room = ((folder / name).open("ab") for name in ("gate.lock", "room.lock"))
        self.is_alone = False

    def enter(self, alone: bool) -> None:
        if self.is_alone:
            return
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if alone:
            self.is_alone = True
        else:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self) -> None:
        self.is_alone = False
        fcntl.flock(self._room, fcntl.LOCK_UN)
        fcntl.flock(self._gate, fcntl.LOCK_UN)


_room = Room(RUN) if WORKER else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    if _room is None:
        return (yield)
    _room.enter(alone=item.get_closest_marker("serial") is not None)
    try:
        return (yield)
    finally:
        # Hold the lock for the next serial test, which would otherwise wait for the other workers again.
        if not (_room.is_alone and nextitem and nextitem.get_closest_marker("serial")):
            _room.leave()


# --- two seconds --------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    limit = item.config.option.limit
    if (
        call.when == "call"
        and report.passed
        and limit
        and not SLOWER_ALLOWED & {mark.name for mark in item.iter_markers()}
    ):
        allowed = limit * stretch()
        if call.duration > allowed:
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} takes {call.duration:.1f} s: mark it slow or make it faster. "
                f"Tests that aren't marked slow may take {limit:g} s; while the machine is this busy, {allowed:.1f} s."
            )
    return report
