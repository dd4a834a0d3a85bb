"""The process engine with a real supervisord, real bubblewrap where it is installed, and the real scoring program."""

import itertools
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mms.engines.base import EngineRefusedError, EngineUnavailableError, Health, Limits, Revision
from mms.engines.probe import connect
from mms.engines.process import sandbox
from mms.engines.process.engine import INIT_FAILED, ProcessEngine
from mms.engines.process.guard import Resources
from mms.engines.process.program import Program
from mms.scoring import settings as scoring_settings
from tests.supervised import ECHO, Site, make_image, wait_until
from tests.unit.mms.system.test_trees import nest

needs_bubblewrap = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap is not installed")
SLEEPER = "import time\ndef init(): pass\ndef run(body):\n    time.sleep(float(body))\n    return 'slept'\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not in pytest's folder, which other users can't enter: without a sandbox, services of root run as other users.
    with tempfile.TemporaryDirectory(prefix="e") as folder, Site(Path(folder)) as site:
        yield site


@pytest.fixture
def engine(site: Site) -> Iterator[ProcessEngine]:
    """Return the engine, with no services running before and after the test."""
    engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data)
    yield engine
    for service_id, number in engine.running():
        engine.remove(service_id, number)


@pytest.fixture(params=[pytest.param("bubblewrap", marks=needs_bubblewrap), "plain"])
def either(
    request: pytest.FixtureRequest, engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessEngine]:
    """Return the engine, once with bubblewrap and once as on a machine without it."""
    if request.param == "plain":
        monkeypatch.setenv("PATH", "/nowhere")
    sandbox.trial.cache_clear()
    assert bool(sandbox.unavailable_reason(engine.hidden)) == (request.param == "plain")
    yield engine
    sandbox.trial.cache_clear()


def started(engine: ProcessEngine, driver: str = ECHO, limits: Limits | None = None, number: int = 1) -> Revision:
    """Start a revision with this driver and wait until it is healthy."""
    revision = applied(engine, driver, limits, number)
    wait_until(lambda: engine.observe(revision.service_id, number).health == Health.HEALTHY)
    return revision


def applied(engine: ProcessEngine, driver: str, limits: Limits | None = None, number: int = 1) -> Revision:
    image = make_image(engine.store, driver)
    revision = Revision(str(uuid.uuid4()), number, image, limits or Limits())
    engine.apply(revision)
    return revision


def address(engine: ProcessEngine, revision: Revision) -> str:
    return Program.for_revision(engine.run, revision.service_id, revision.number).address


class StartingError(AssertionError):
    """The process that responded has not finished init()."""


def score(where: str, body: str, timeout: float = 10) -> Any:
    connection = connect(where, timeout)
    connection.request("POST", "/score", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    if response.status == 503 and b'"Starting"' in data:
        raise StartingError
    assert response.status == 200, data
    return json.loads(data)


def health(engine: ProcessEngine, revision: Revision) -> Health:
    return engine.observe(revision.service_id, revision.number).health


def process_id(engine: ProcessEngine, revision: Revision) -> int:
    """Return the process id of the scoring program, which is below the sandbox if there is one."""
    info = engine.supervisor.info(Program.for_revision(engine.run, revision.service_id, revision.number).name)
    assert info
    pid = int(info["pid"])
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def test_a_revision_starts_and_answers_on_its_socket(either: ProcessEngine) -> None:
    revision = started(either)
    assert score(address(either, revision), "[1]") == {"echo": "[1]"}
    assert either.running() == {(revision.service_id, 1)}


def test_applying_again_leaves_the_running_process_alone(engine: ProcessEngine) -> None:
    revision = started(engine)
    before = process_id(engine, revision)
    assert engine.apply(revision) == address(engine, revision)
    assert process_id(engine, revision) == before


def test_removing_leaves_the_log_and_nothing_else(either: ProcessEngine, site: Site) -> None:
    revision = started(either)
    assert site.children()
    either.remove(revision.service_id, 1)
    assert site.children() == []
    assert [path.name for path in (site.run / "services").iterdir()] == [".lock"]
    assert list((site.run / "s").iterdir()) == []
    assert either.running() == set()
    assert health(either, revision) == Health.ABSENT
    assert "init() has returned" in either.logs(revision.service_id, 1)[0]


@pytest.mark.slow  # of the disk
def test_a_folder_filled_by_a_driver_of_an_earlier_release_is_removed(engine: ProcessEngine, site: Site) -> None:
    """Earlier releases mounted the socket's folder into the sandbox, writable."""
    revision, other = started(engine), uuid.uuid4()
    folder = Program.for_revision(site.run, revision.service_id, 1).socket.parent
    left = Program.for_revision(site.run, str(other), 1).socket.parent
    left.mkdir()
    nest(folder, 1100)
    nest(left, 1100)
    engine.remove(revision.service_id, 1)
    engine.drop_stale()
    assert list((site.run / "s").iterdir()) == []


def test_an_image_with_an_earlier_scoring_program_runs(engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It creates its socket itself, or gets it as a descriptor and then doesn't report open requests."""

    def earlier(source: Path, target: Path, *options: Any, **named: Any) -> None:
        if Path(target).name != "scoring":
            copytree(source, target, *options, **named)
            return
        Path(target).mkdir(parents=True)
        Path(target, "__init__.py").touch()
        Path(target, "__main__.py").write_text(
            "import os\nfrom . import server\nserver.serve(os.environ['MMS_LISTEN'])"
        )
        Path(target, "server.py").write_text(EARLIER_SERVER)

    copytree = shutil.copytree
    monkeypatch.setattr(shutil, "copytree", earlier)
    revision = started(engine)
    assert engine.observe(revision.service_id, 1).in_flight == 0


EARLIER_SERVER = """
import json, socket

def open_socket(listen):
    kind, _, place = listen.partition(":")
    return socket.socket(fileno=int(place)) if kind == "fd" else _open_unix(place)

def _open_unix(path):
    raise OSError("This folder isn't mounted any more.")

def serve(listen):
    listening = open_socket(listen)
    health = {"status": "healthy"}
    if not listen.startswith("fd:"):
        health["inFlight"] = 0
    body = json.dumps(health)
    while True:
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
        connection.close()
"""


def test_removing_a_missing_service_is_not_an_error(engine: ProcessEngine) -> None:
    engine.remove(str(uuid.uuid4()), 1)


def test_a_request_being_answered_is_finished_before_the_process_ends(either: ProcessEngine) -> None:
    revision = started(either, SLEEPER)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(score(address(either, revision), "1.5")))
    asking.start()
    wait_until(lambda: either.observe(revision.service_id, 1).in_flight == 1)
    either.remove(revision.service_id, 1)
    asking.join()
    assert answers == ["slept"]


def test_a_driver_sees_nothing_of_the_site_the_network_or_the_supervisor(site: Site, engine: ProcessEngine) -> None:
    if sandbox.unavailable_reason(site.data):
        pytest.skip(sandbox.unavailable_reason(site.data))
    site.stop()
    site.start(**os.environ, PLANTED_SECRET="planted-secret")
    secret = site.data / "secret_key"
    secret.write_text("planted-secret")
    spy = f"""
import json, os, resource, socket
def init(): pass
def attempt(what):
    try:
        return repr(what())
    except OSError as error:
        return type(error).__name__
def run(body):
    return {{
        "secret": attempt(lambda: open({str(secret)!r}).read()),
        "supervisor": attempt(lambda: socket.socket(socket.AF_UNIX).connect({str(site.socket)!r})),
        "environment": dict(os.environ),
        "network": attempt(lambda: socket.create_connection(("127.0.0.1", {os.getpid() % 1000 + 1024}), 1)),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "write": {{path: attempt(lambda: open(path + "/x", "w")) for path in ("/", "/app", "/opt/mms", "/usr")}},
        "tmp": os.listdir("/tmp"),
        "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
        "capabilities": [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "terminal": attempt(lambda: open("/dev/tty")),
        "directory": os.getcwd(),
    }}
"""
    seen = score(address(engine, started(engine, spy)), "")
    assert isinstance(seen, dict)
    assert seen["secret"] == seen["supervisor"] == "FileNotFoundError"
    assert "planted-secret" not in json.dumps(seen)
    assert seen["network"] in {"ConnectionRefusedError", "OSError"}
    assert seen["interfaces"] == ["lo"]
    assert set(seen["write"].values()) == {"OSError"}  # read-only file system
    assert seen["tmp"] == []
    assert seen["processes"] == 2  # the sandbox's process and the program
    assert int(seen["capabilities"], 16) == 0
    assert (seen["core"], seen["files"]) == (0, 4096)
    assert seen["terminal"] == "OSError"
    assert seen["directory"] == "/app"


def test_a_driver_finds_its_user_its_models_and_an_empty_input(either: ProcessEngine, site: Site) -> None:
    """Packages such as torch ask for the user when they are imported."""
    driver = """
import getpass, json, multiprocessing, os, pwd, sys, tempfile
def init(): pass
def entry():
    try: return pwd.getpwuid(os.getuid()).pw_name
    except KeyError: return None
def run(body):
    with tempfile.TemporaryFile(dir=os.path.expanduser("~")) as file: file.write(b"x")
    with multiprocessing.Pool(2) as pool: found = pool.map(abs, [-1])
    return [getpass.getuser(), os.environ["LOGNAME"], entry(), os.environ["AZUREML_MODEL_DIR"], os.getcwd(),
            sys.stdin.read(), found]
"""
    user, logname, entry, models, directory, stdin, found = score(address(either, started(either, driver)), "")
    assert (user, logname, stdin, found) == ("nobody", "nobody", "", [1])
    assert models == f"{directory}/models"
    if not sandbox.unavailable_reason(site.data):
        assert (entry, directory) == ("nobody", "/app")


def test_without_a_sandbox_the_environment_of_the_supervisor_stays_outside(either: ProcessEngine, site: Site) -> None:
    site.stop()
    site.start(**os.environ, PLANTED_SECRET="planted-secret")
    revision = started(either, "import os\ndef init(): pass\ndef run(body): return dict(os.environ)\n")
    seen = score(address(either, revision), "")
    assert "planted-secret" not in str(seen)


def test_the_ops_page_says_what_a_driver_can_reach(either: ProcessEngine) -> None:
    text = sandbox.exposure(either.hidden, network=False)
    if sandbox.unavailable_reason(either.hidden):
        assert "secret key" in text
        assert "bwrap" in text
    else:
        assert "no network" in text


def test_a_killed_process_is_restarted_and_reports_its_restarts(either: ProcessEngine) -> None:
    revision = started(either)
    os.kill(process_id(either, revision), signal.SIGKILL)
    seen = wait_until(lambda: (now := either.observe(revision.service_id, 1)).health == Health.CRASHED and now)
    assert seen.detail.startswith("It ended with SIGKILL (it was killed, or the machine ran out of memory);")
    assert not seen.is_unrecoverable
    wait_until(lambda: health(either, revision) == Health.HEALTHY)
    assert either.observe(revision.service_id, 1).restarts == 1
    assert either.observe(revision.service_id, 1).detail == "Restarted 1 time."


def test_an_init_that_fails_is_unrecoverable_and_its_trace_is_in_the_log(engine: ProcessEngine) -> None:
    revision = applied(engine, "def init(): raise ValueError('no such weights')\ndef run(body): pass\n")
    seen = wait_until(lambda: (now := engine.observe(revision.service_id, 1)).health == Health.CRASHED and now)
    assert seen.is_unrecoverable
    assert "exit status 3" in seen.detail
    assert any("no such weights" in line for line in engine.last_lines(revision.service_id, 1, 20))
    assert f"exit status {scoring_settings.INIT_FAILED}" == INIT_FAILED


def test_services_may_use_the_network_where_that_is_set(site: Site, engine: ProcessEngine) -> None:
    open_engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data, network=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        driver = f"import socket\ndef init(): pass\ndef run(body): socket.create_connection(({host!r}, {port}), 2)\n"
        assert score(address(engine, started(open_engine, driver)), "") is None


def test_exceeding_the_memory_limit_fails_only_the_request(site: Site, engine: ProcessEngine) -> None:
    small = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data, resources=Resources(512 * 1024**2))
    driver = (
        "def init(): pass\ndef run(body):\n    try: return len(bytearray(1024**3))\n"
        "    except MemoryError: return 'no memory'\n"
    )
    assert score(address(engine, started(small, driver)), "") == "no memory"


def test_several_processes_share_the_socket_of_a_revision(engine: ProcessEngine) -> None:
    driver = "import os, sys\ndef init(): pass\ndef run(body): return [os.getpid(), sys.flags.no_site]\n"
    revision = started(engine, driver, Limits(processes=2))
    seen: set[int] = set()

    def has_seen_both() -> bool:
        # The revision is healthy as soon as one process is. The other responds with 503 until its init() returns.
        with suppress(StartingError):
            seen.add(score(address(engine, revision), "")[0])
        return len(seen) == 2

    wait_until(has_seen_both)
    assert score(address(engine, revision), "")[1] == 1


@pytest.mark.slow
def test_quick_crashes_are_followed_by_growing_pauses(engine: ProcessEngine, site: Site) -> None:
    revision = applied(engine, "import os\ndef init(): os._exit(1)\ndef run(body): pass\n")
    wait_until(lambda: engine.observe(revision.service_id, 1).restarts == 3, 20)
    name = Program.for_revision(site.run, revision.service_id, 1).name
    spawned = [line for line in site.log.read_text().splitlines() if f"spawned: '{name}'" in line]
    times = [time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) + int(line[20:23]) / 1000 for line in spawned]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 1
    assert pauses[2] >= 3


@pytest.mark.slow
def test_a_process_that_runs_and_does_not_answer_is_unhealthy_not_crashed(engine: ProcessEngine) -> None:
    revision = started(engine, limits=Limits(init_timeout=1))
    pid = process_id(engine, revision)
    time.sleep(1.5)
    os.kill(pid, signal.SIGSTOP)
    seen = engine.observe(revision.service_id, 1)
    assert seen.health == Health.UNHEALTHY
    assert seen.detail == "It is running, but it didn't respond within 2 s."
    os.kill(pid, signal.SIGCONT)
    assert health(engine, revision) == Health.HEALTHY


def test_an_endless_run_makes_the_service_unhealthy_immediately(engine: ProcessEngine) -> None:
    revision = started(engine, SLEEPER, Limits(run_timeout=0.2))
    connection = connect(address(engine, revision), 5)
    connection.request("POST", "/score", "30")
    connection.getresponse().read()
    seen = wait_until(lambda: (now := engine.observe(revision.service_id, 1)).health == Health.UNHEALTHY and now)
    assert "A call of run() is taking longer than its limit. Retry in a moment." in seen.detail
    assert ".." not in seen.detail


def test_while_init_runs_the_service_is_starting(engine: ProcessEngine) -> None:
    revision = applied(engine, "import time\ndef init(): time.sleep(1)\ndef run(body): pass\n")
    assert health(engine, revision) == Health.STARTING
    wait_until(lambda: health(engine, revision) == Health.HEALTHY)


def test_a_stopped_program_is_started_by_applying_it_again(engine: ProcessEngine) -> None:
    revision = started(engine)
    name = Program.for_revision(engine.run, revision.service_id, 1).name
    engine.supervisor._call("stopProcess", name)
    assert health(engine, revision) == Health.CRASHED
    engine.apply(revision)
    wait_until(lambda: health(engine, revision) == Health.HEALTHY)


@pytest.mark.slow
def test_services_restart_with_the_supervisor(either: ProcessEngine, site: Site) -> None:
    revision = started(either)
    site.stop()
    assert site.children() == []
    site.start()
    wait_until(lambda: health(either, revision) == Health.HEALTHY)
    assert either.observe(revision.service_id, 1).restarts == 0


def test_services_end_when_the_supervisor_is_killed(either: ProcessEngine, site: Site) -> None:
    revision = started(either)
    site.kill()
    wait_until(lambda: site.children() == [])
    with pytest.raises(EngineUnavailableError, match="Couldn't reach the supervisor"):
        either.observe(revision.service_id, 1)
    site.start()
    wait_until(lambda: health(either, revision) == Health.HEALTHY)


@pytest.mark.slow
def test_many_workers_can_start_and_remove_concurrently(engine: ProcessEngine, site: Site) -> None:
    image = make_image(engine.store)
    revisions = [Revision(str(uuid.uuid4()), 1, image) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(engine.apply, revisions))
        assert len(engine.running()) == 8
        wait_until(lambda: all(health(engine, revision) == Health.HEALTHY for revision in revisions), 40)
        list(pool.map(lambda revision: engine.remove(revision.service_id, 1), revisions))
    assert engine.running() == set()
    assert site.children() == []


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "x\n[program:evil]\ncommand=sh", "", "a;b", "%(here)s", "\0"])
def test_an_id_that_is_not_a_guid_is_never_used_as_a_name(engine: ProcessEngine, hostile: str) -> None:
    for act in (engine.remove, engine.observe, engine.logs):
        with pytest.raises(EngineRefusedError, match="isn't a service ID"):
            act(hostile, 1)
    with pytest.raises(EngineRefusedError, match="isn't a revision number"):
        engine.observe(str(uuid.uuid4()), -1)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"python": "3.6"}, "built for Python 3.6"),
        ({"architecture": "s390x"}, "built for linux/s390x"),
    ],
)
def test_an_image_for_another_machine_is_refused_before_anything_starts(
    engine: ProcessEngine, image: dict[str, str], reason: str
) -> None:
    revision = Revision(str(uuid.uuid4()), 1, make_image(engine.store, **image))
    with pytest.raises(EngineRefusedError, match=reason):
        engine.apply(revision)
    assert engine.running() == set()


def test_a_missing_image_is_rejected(engine: ProcessEngine) -> None:
    engine.store.prepare()
    with pytest.raises(EngineRefusedError, match="Build the image again"):
        engine.check(f"sha256:{'0' * 64}")


@pytest.mark.slow
def test_foreign_and_damaged_programs_do_not_prevent_the_supervisor_from_starting(
    engine: ProcessEngine, site: Site
) -> None:
    good, moved = started(engine), started(engine)
    site.stop()
    conf = Program.for_revision(site.run, moved.service_id, 1).conf
    conf.write_text(conf.read_text().replace(str(site.mms), "/elsewhere/mms"))
    (site.run / "services" / "mms-nonsense.conf").write_text("[program:")
    engine.drop_stale()
    site.start()
    wait_until(lambda: health(engine, good) == Health.HEALTHY)
    assert engine.running() == {(good.service_id, 1)}


@pytest.mark.slow
def test_files_and_sockets_without_a_program_are_deleted_at_the_next_start(engine: ProcessEngine, site: Site) -> None:
    good, gone = started(engine), started(engine)
    left = Program.for_revision(site.run, gone.service_id, 1)
    site.stop()
    left.conf.unlink()  # as a worker leaves it that was killed while it removed the service
    (site.run / "s" / "nobody-1").mkdir()
    assert left.plan.exists()
    engine.drop_stale()
    kept = Program.for_revision(site.run, good.service_id, 1)
    assert {path.stem for path in (site.run / "services").glob("mms-*")} == {kept.name}
    assert list((site.run / "s").iterdir()) == [kept.socket.parent]
    site.start()
    wait_until(lambda: health(engine, good) == Health.HEALTHY)


def test_leftovers_of_a_removed_revision_count_as_running_until_they_are_removed(
    engine: ProcessEngine, site: Site
) -> None:
    revision = started(engine)
    program = Program.for_revision(site.run, revision.service_id, 1)
    program.conf.unlink()
    engine.supervisor.remove(program.name, 15)
    assert engine.running() == {(revision.service_id, 1)}
    engine.remove(revision.service_id, 1)
    assert engine.running() == set()
    assert not program.socket.parent.exists()


def test_a_program_whose_image_must_be_unpacked_again_waits_for_the_watch(engine: ProcessEngine, site: Site) -> None:
    revision = started(engine)
    site.stop()
    engine.store.remove_recent_trees()
    engine.drop_stale()
    site.start()
    assert engine.running() == set()
    engine.apply(revision)
    wait_until(lambda: health(engine, revision) == Health.HEALTHY)


@pytest.mark.parametrize("changed", [{"network": True}, {"resources": Resources(2**33)}])
def test_a_program_planned_with_other_settings_is_not_restarted(
    engine: ProcessEngine, site: Site, changed: dict[str, Any]
) -> None:
    revision = started(engine)
    engine.drop_stale()
    assert Program.for_revision(engine.run, revision.service_id, 1).conf.exists()
    ProcessEngine(site.mms, site.run, site.socket, hidden=site.data, **changed).drop_stale()
    assert not Program.for_revision(engine.run, revision.service_id, 1).conf.exists()


@needs_bubblewrap
def test_a_program_planned_without_a_sandbox_is_not_restarted_if_one_is_available(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.trial.cache_clear()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", "/nowhere")
        revision = started(engine)
    sandbox.trial.cache_clear()
    engine.drop_stale()
    assert not Program.for_revision(engine.run, revision.service_id, 1).conf.exists()


@pytest.mark.slow
def test_a_data_folder_with_special_characters_of_supervisord_works(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Site(tmp_path_factory.mktemp("a #b ;%c'd#")) as site:
        engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data)
        revision = started(engine)
        assert score(address(engine, revision), "1") == {"echo": "1"}
        assert "init() has returned" in engine.logs(revision.service_id, 1)[0]


def test_a_data_folder_that_supervisord_cannot_represent_is_rejected() -> None:
    with pytest.raises(EngineRefusedError, match="Choose another DATA_DIR"):
        Program.for_revision(Path("/data\nx"), str(uuid.uuid4()), 1).section(Path("/log"))


def test_a_data_folder_too_deep_for_a_socket_is_refused() -> None:
    with pytest.raises(EngineRefusedError, match="too long for a socket"):
        _ = Program.for_revision(Path("/" + "d" * 100), str(uuid.uuid4()), 1).address
