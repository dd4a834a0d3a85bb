"""SIGKILL for the bundled MMS in every phase of its work.

Each operation ends once, in its true state, and leaves nothing incomplete. The figures are printed last.
"""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import wholeness
from tests.faults.mms_figures import Figures, printed
from tests.faults.mms_kills import kill_builder, kill_everything, kill_worker
from tests.faults.mms_phases import BUILDS, PHASES, Held, World, enter, running_world

pytestmark = pytest.mark.slow

SOON = 60  # seconds, on a busy machine; the figures show the real times


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    with printed(request) as figures:
        yield figures


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("killed")) as world:
        yield world


def killed(what: Callable[[World], None], world: World, figures: Figures, *held: Held) -> float:
    """Kill it and release the held operations. Return the time of the kill."""
    for one in held:
        assert world.operation(one.operation)["state"] == "Running", one.phase
    what(world)
    figures.kills += 1
    at = time.monotonic()
    for one in held:
        one.go()
    return at


# --- conditions after recovery ----------------------------------------------------------------------------------------


def recovers(world: World, figures: Figures, what: str, at: float, held: Held) -> None:
    try:
        operation = world.ended(held.operation, SOON)
    except AssertionError:
        figures.lost += 1
        raise
    figures.seconds[f"{what} killed in {held.phase}"].append(time.monotonic() - at)
    assert operation["state"] == "Succeeded", operation


def had_one_effect(world: World, figures: Figures, held: Held) -> None:
    """Assert that the same request returns the same operation, and that it created one resource."""
    answer = held.again()
    figures.requests += 1
    assert answer.headers["x-ms-request-id"] == held.operation
    if held.phase in BUILDS:
        images = world.send("GET", "images").json()
        made = [image for image in images if image["manifestId"] == held.manifest]
        figures.repeated += len(made) - 1
        assert len(made) == 1
    elif held.phase in ("switch", "drain"):
        revisions = world.rows("SELECT state FROM mms_revision WHERE service_id = ? ORDER BY number", held.service)
        figures.repeated += len(revisions) - 2
        assert revisions == [("stopped",), ("active",)]
    else:
        states = {"start": [("active",)], "delete": [("stopped",)]}[held.phase]
        assert world.rows("SELECT state FROM mms_revision WHERE service_id = ?", held.service) == states


def works_and_is_the_same(world: World, held: Held) -> None:
    """Assert that a rebuild gives the same digest, that a service answers, and that a deleted one doesn't."""
    if held.phase in BUILDS:
        first = world.send("GET", f"images/{world.made(held)}").json()["digest"]
        again = world.made(world.build(held.manifest))
        assert world.send("GET", f"images/{again}").json()["digest"] == first
    elif held.phase == "delete":
        assert world.send("GET", f"services/{held.service}").status_code == 404
    else:
        assert world.score(held.service).status_code == 200


def assert_recovered(world: World, figures: Figures, what: str, at: float, *held: Held) -> None:
    for one in held:
        recovers(world, figures, what, at, one)
    for one in held:
        had_one_effect(world, figures, one)
        works_and_is_the_same(world, one)
    assert_idle(world)
    wholeness.assert_whole(world.site)


def assert_idle(world: World) -> None:
    assert world.rows("SELECT id FROM mms_operation WHERE state IN ('NotStarted', 'Running')") == []


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_worker_s_operation_is_finished_by_the_next(world: World, figures: Figures, phase: str) -> None:
    (held,) = enter(world, phase)
    at = killed(kill_worker, world, figures, held)
    assert_recovered(world, figures, "worker", at, held)


@pytest.mark.parametrize("phase", BUILDS)
def test_a_killed_builder_fails_the_operation_and_names_the_signal(world: World, figures: Figures, phase: str) -> None:
    (held,) = enter(world, phase)
    at = killed(kill_builder, world, figures, held)
    operation = world.ended(held.operation, SOON)
    figures.seconds[f"builder killed in {phase}"].append(time.monotonic() - at)
    assert operation["state"] == "Failed"
    assert "SIGKILL" in operation["error"]["message"]
    assert held.again().headers["x-ms-request-id"] == held.operation
    assert_idle(world)
    wholeness.assert_whole(world.site)
    image = world.made(world.build(held.manifest))
    assert world.send("GET", f"images/{image}").json()["digest"]


# This phase runs alone, because switching holds the lock that other operations need to enter their phases.
@pytest.mark.parametrize("phases", [BUILDS, ("start", "drain", "delete"), ("switch",)], ids="-".join)
def test_operations_finish_after_a_restart_when_every_process_was_killed(
    world: World, figures: Figures, phases: tuple[str, ...]
) -> None:
    held = enter(world, *phases)
    killed(kill_everything, world, figures, *held)
    at = time.monotonic()
    world.site.start()
    assert_recovered(world, figures, "everything", at, *held)


def test_other_tools_can_read_the_store(world: World) -> None:
    wholeness.readable_by_others(world.site)
