"""Attempts of a driver in a real service to access the machine, with and without bubblewrap, and on a root site."""

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mms.engines.base import EngineRefusedError, Health, Observation, Revision
from mms.engines.probe import connect
from mms.engines.process import attempts, confine, guard, launch, sandbox
from mms.engines.process.engine import MAX_OPEN_FILES, ProcessEngine
from mms.engines.process.guard import Resources
from mms.engines.process.program import Program
from tests.supervised import Site, make_image, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what changes for root")
needs_bubblewrap = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap is not installed")
NOBODY_HERE = 12345
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")

# Tries everything in init(), as an attacker would, and answers with the results.
HOSTILE = """
import ctypes, errno, multiprocessing, os, tempfile
found = {}
FIELDS = ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd", "NoNewPrivs", "Seccomp")

def attempt(name, what):
    try:
        found[name] = what()
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def write(path):
    def act():
        with open(path, "r+b", buffering=0) as file:
            return file.write(file.read())
    return act

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result

def status(field):
    return next((line.split()[1] for line in open("/proc/self/status") if line.startswith(field + ":")), "")

def init():
    for path in ("vm/swappiness", "kernel/core_pattern", "kernel/modprobe", "fs/file-max", "net/ipv4/ip_forward"):
        attempt(path, write("/proc/sys/" + path))
    for path in ("/proc/sysrq-trigger", "/proc/mtrr", "/proc/irq/default_smp_affinity"):
        attempt(path, lambda: os.open(path, os.O_WRONLY))
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list"):
        attempt(path, lambda: os.open(path, os.O_RDONLY))
    attempt("setuid", lambda: os.setuid(0))
    attempt("shared memory", lambda: multiprocessing.Lock() and "works")
    attempt("temporary file", lambda: tempfile.TemporaryFile().write(b"works"))
    attempt("output", lambda: open("/dev/stdout", "w").write("written to the output again\\n"))
    if os.uname().machine == "x86_64":
        found["calls"] = {
            "unshare": call(272, 0x10000000), "clone": call(56, 0x10000000 | 17, 0), "clone3": call(435, 0, 0),
            "mount": call(165, b"/tmp", b"/tmp", 0, 4096, 0), "keyctl": call(250, 0, -3, 1), "bpf": call(321, 0, 0, 0),
        }

def run(body):
    return {
        "found": found, "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
        "read only": [line.split()[4] for line in open("/proc/self/mountinfo") if line.split()[5].startswith("ro")],
        "status": {field: status(field) for field in FIELDS},
    }
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not in pytest's folder, which other users can't enter: without a sandbox, services of root run as other users.
    with tempfile.TemporaryDirectory(prefix="i") as folder, Site(Path(folder)) as site:
        yield site


@pytest.fixture(params=[pytest.param("bubblewrap", marks=needs_bubblewrap), "plain"])
def engine(request: pytest.FixtureRequest, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessEngine]:
    """Return the engine, once with bubblewrap and once as on a machine without it. Stop all services afterwards."""
    if request.param == "plain":
        monkeypatch.setenv("PATH", "/nowhere")
    sandbox.trial.cache_clear()
    engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data)
    assert bool(sandbox.unavailable_reason(engine.hidden)) == (request.param == "plain")
    yield engine
    for service_id, number in engine.running():
        engine.remove(service_id, number)
    sandbox.trial.cache_clear()


def applied(engine: ProcessEngine, driver: str) -> Revision:
    revision = Revision(str(uuid.uuid4()), 1, make_image(engine.store, driver))
    engine.apply(revision)
    wait_until(lambda: healthy(engine, revision))
    return revision


def healthy(engine: ProcessEngine, revision: Revision) -> bool:
    return engine.observe(revision.service_id, revision.number).health == Health.HEALTHY


def score(engine: ProcessEngine, revision: Revision) -> Any:
    connection = connect(engine.address(revision.service_id, revision.number), 10)
    connection.request("POST", "/score", "1")
    response = connection.getresponse()
    data = response.read()
    connection.close()
    assert response.status == 200, data
    return json.loads(data)


def test_a_driver_can_neither_write_kernel_settings_nor_gain_privileges(engine: ProcessEngine) -> None:
    before = {path: Path(path).read_text() for path in ("/proc/sys/vm/swappiness", "/proc/sys/kernel/core_pattern")}
    revision = applied(engine, HOSTILE)
    said = score(engine, revision)
    found, boxed = said["found"], not sandbox.unavailable_reason(engine.hidden)
    denied = {"EACCES", "EROFS"}  # the owner is checked before the mount
    for path in ("vm/swappiness", "kernel/core_pattern", "fs/file-max", "net/ipv4/ip_forward"):
        assert found[path] in denied, path
    assert found["kernel/modprobe"] in {*denied, "ENOENT"}
    for path in ("/proc/sysrq-trigger", "/proc/mtrr", "/proc/irq/default_smp_affinity"):
        assert found[path] in {*denied, "ENOENT"}, path
    if boxed:
        covered = {path for name in sandbox.PROC_READ_ONLY if Path(path := f"/proc/{name}").exists()}
        assert {"/proc/sys", *covered} <= set(said["read only"])
        assert {found[path] for path in attempts.KERNEL_SECRETS} <= {"EACCES", "ENOENT"}
    assert found["setuid"] == "EPERM"
    assert said["uids"] == [said["uids"][0]] * 3
    assert 0 not in said["uids"]
    assert {int(said["status"][name], 16) for name in CAPABILITIES} == {0}
    assert (said["status"]["NoNewPrivs"], said["status"]["Seccomp"]) == ("1", "2")
    if "calls" in found:
        assert found["calls"].pop("clone3") == "ENOSYS"
        assert set(found["calls"].values()) == {"EPERM"}
    assert (found["shared memory"], found["temporary file"]) == ("works", 5)
    assert "written to the output again" in engine.logs(revision.service_id, 1)[0]
    assert {path: Path(path).read_text() for path in before} == before


@as_root
def test_each_service_of_root_has_a_separate_user(engine: ProcessEngine) -> None:
    said = score(engine, first := applied(engine, HOSTILE))
    other = score(engine, applied(engine, HOSTILE))
    assert said["uids"][0] in sandbox.SERVICE_UIDS
    assert said["uids"][0] != other["uids"][0]
    assert said["gids"] == [sandbox.SERVICE_GID] * 3
    assert said["groups"] == []
    assert int(said["status"]["CapBnd"], 16) == 0
    found = Program.for_revision(engine.run, first.service_id, 1).socket
    assert (found.stat().st_uid, stat.S_IMODE(found.stat().st_mode)) == (0, 0o600)
    assert (found.parent.stat().st_uid, stat.S_IMODE(found.parent.stat().st_mode)) == (0, 0o700)


@as_root
def test_without_a_sandbox_root_s_services_still_cannot_read_the_site_or_each_other(
    engine: ProcessEngine, site: Site
) -> None:
    if not sandbox.unavailable_reason(engine.hidden):
        pytest.skip("with a sandbox they don't even see it")
    secret = site.data / "secret_key"
    secret.touch(mode=0o600)
    site.run.chmod(0o700)  # as `up` creates it
    other = Program.for_revision(engine.run, applied(engine, HOSTILE).service_id, 1)
    paths = [str(path) for path in (secret, site.socket, other.socket, other.plan)]
    spy = f"""
import os, socket
def init(): pass
def attempt(act):
    try:
        return repr(act())
    except OSError as error:
        return type(error).__name__
def run(body):
    paths = {paths!r}
    return [
        *(attempt(lambda: open(path).read()) for path in paths),
        *(attempt(lambda: socket.socket(socket.AF_UNIX).connect(path)) for path in paths),
        *(attempt(lambda: os.listdir(path)) for path in {[str(site.data), str(site.run), str(other.socket.parent)]!r}),
    ]
"""
    assert set(score(engine, applied(engine, spy))) == {"PermissionError"}


@as_root
def test_files_left_by_an_earlier_release_as_root_do_not_prevent_a_service_from_running(
    engine: ProcessEngine, site: Site
) -> None:
    revision = applied(engine, HOSTILE)
    site.stop()
    program = Program.for_revision(engine.run, revision.service_id, 1)
    os.chown(program.socket.parent, 0, 0)
    program.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(program.socket))
    for folder, _, _ in os.walk(site.mms):
        Path(folder).chmod(0o700)
    plan = json.loads(program.plan.read_text())
    plan["surroundings"] = {"sandbox": True, "network": False, "memory": 0}
    program.plan.write_text(json.dumps(plan))
    engine.drop_stale()  # its plan runs it as root
    assert not program.conf.exists()
    site.start()
    engine.apply(revision)
    wait_until(lambda: healthy(engine, revision))
    assert 0 not in score(engine, revision)["uids"]


def test_no_folder_of_the_site_is_mounted_into_a_service_and_its_socket_is_out_of_reach(engine: ProcessEngine) -> None:
    program = Program.for_revision(engine.run, str(uuid.uuid4()), 1)
    revision = Revision(program.service_id, 1, make_image(engine.store, thief(program)))
    engine.apply(revision)
    wait_until(lambda: healthy(engine, revision))
    said = score(engine, revision)
    if sandbox.unavailable_reason(engine.hidden):
        if os.geteuid() != 0:
            pytest.skip("a driver without a sandbox can do what the site can")
    else:
        assert set(said["writable"]) <= {"/tmp", "/dev/shm"}

    assert set(said["attempts"].values()) <= {"ENOENT", "EACCES", "EROFS", "EXDEV"}
    assert sorted(path.name for path in program.socket.parent.iterdir()) == ["s", "s.id"]
    assert healthy(engine, revision)


def thief(program: Program) -> str:
    """Return a driver that tries to replace its own socket and to fill the folder of the socket."""
    return f"""
import errno, os, socket
found, names = {{}}, [{str(program.socket)!r}, "/run/mms/s", "/run/s"]

def attempt(name, what):
    try:
        what()
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
    else:
        found[name] = "done"

def can_write(folder):
    try:
        os.close(os.open(folder + "/attempt", os.O_CREAT | os.O_WRONLY))
        os.unlink(folder + "/attempt")
    except OSError:
        return False
    return True

def init():
    for path in names:
        attempt("rename " + path, lambda: os.rename(path, path + ".old"))
        attempt("unlink " + path, lambda: os.unlink(path))
        attempt("link " + path, lambda: os.symlink("/elsewhere", path))
        attempt("bind " + path, lambda: socket.socket(socket.AF_UNIX).bind(path))
        attempt("fill " + path, lambda: os.mkdir(os.path.dirname(path) + "/folder"))
        attempt("record " + path, lambda: open(path + ".id", "w"))
    fd = int(os.environ["MMS_LISTEN"].partition(":")[2])
    attempt("through the descriptor", lambda: os.rename(f"/proc/self/fd/{{fd}}", "/tmp/socket"))

def run(body):
    mounts = [line.split()[4] for line in open("/proc/self/mountinfo")]
    folders = [path for path, _, _ in os.walk("/run")] + mounts
    return {{"writable": [path for path in folders if can_write(path)], "attempts": found}}
"""


def test_the_attempts_find_no_vulnerability(engine: ProcessEngine) -> None:
    assert sandbox.holes(engine.hidden) == []
    found = sandbox.trial(engine.hidden).found
    assert found["uid"] != 0
    assert not found["user_namespace"]


@as_root
def test_the_attempts_detect_the_access_of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts run without a sandbox and write only existing values."""
    (tmp_path / "db.sqlite3").touch()
    socket = tmp_path / "s"
    socket.touch()
    limits = {"memory": 2**20, "temporary": 2**20, "tasks": 8}
    options = {"folder": str(tmp_path), "socket": str(socket), **limits}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-", json.dumps(options)],
        input=Path(attempts.__file__).read_bytes(),
        check=True,
        capture_output=True,
    )
    found = json.loads(done.stdout)
    assert found["uid"] == 0
    assert found["capabilities"]
    assert found["new_privileges"]
    assert all(found[name] for name in ("own", "socket", "memory", "tasks", "out_of_memory"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db.sqlite3", "s"]
    assert "/usr" in found["outside"]
    monkeypatch.setattr(sandbox, "trial", lambda data: sandbox.Trial(("--unshare-all",), "", found))
    text = sandbox.exposure(tmp_path, network=False)
    assert "Tested: a driver can act as root, " in text
    assert "create files in /" in text
    for hole in ("replace its socket", "use any amount of memory", "start any number of processes", "outlive the site"):
        assert hole in text
    if os.access("/proc/sys/vm/swappiness", os.W_OK):
        assert "/proc/sys/vm/swappiness" in found["settings"]
        assert "write kernel settings of this machine (/proc/sys/" in text


@as_root
@needs_bubblewrap
@pytest.mark.parametrize("covered", [True, False])
def test_even_root_finds_the_kernel_s_settings_read_only(
    covered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a user namespace as root, without the mounts over /proc, the attempts find the vulnerability."""
    if not os.access("/proc/sys/vm/swappiness", os.W_OK):
        pytest.skip("read-only on this machine already")
    if not covered:
        monkeypatch.setattr(sandbox, "PROC_READ_ONLY", ())
    run_as_root = [sandbox.python(), "-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"]
    monkeypatch.setattr(sandbox, "confined", lambda *_: run_as_root)
    view = sandbox.View({"/app": tmp_path}, "/app", tmp_path)
    command = [*sandbox._command(view, {}, None, ("--unshare-all",)), sandbox.python()]
    if not covered:
        at = command.index("/proc", command.index("--remount-ro"))
        del command[at - 1 : at + 1]
    found, failure = sandbox._attempt(command, tmp_path, None)
    assert (found["uid"], failure) == (0, "")
    assert ("/proc/sys/vm/swappiness" in found["settings"]) == (not covered)
    if covered:
        assert found["settings"] == []


def test_a_site_that_is_not_root_has_the_same_sandbox(tmp_path: Path) -> None:
    """A process drops root. It needs a Python and the project's modules where other users can read them."""
    python = sandbox.python_for(sandbox.User(NOBODY_HERE, NOBODY_HERE))
    if os.geteuid() == 0 and sandbox.closed_above(Path(python)):
        pytest.skip("no Python that other users can run")
    with tempfile.TemporaryDirectory() as folder:
        code, data = Path(folder, "code"), Path(folder, "data")
        package = code / "mms"
        shutil.copytree(Path(confine.__file__).parent, package / "engines" / "process")
        for made in (package / "__init__.py", package / "engines" / "__init__.py", data / "db.sqlite3"):
            made.parent.mkdir(exist_ok=True)
            made.touch()
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        script = (
            "import json, pathlib, sys; sys.path.insert(0, sys.argv[1]); from mms.engines.process import sandbox\n"
            "data = pathlib.Path(sys.argv[2]); tried = sandbox.trial(data)\n"
            "print(json.dumps([tried.reason, tried.found, sandbox.holes(data), sandbox.denial_reason(data)]))"
        )
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = {"user": NOBODY_HERE, "group": NOBODY_HERE, "extra_groups": []}
        done = subprocess.run(
            [python, "-I", "-S", "-c", script, str(code), str(data)], cwd="/", check=True, capture_output=True, **user
        )
    reason, found, holes, refusal = json.loads(done.stdout)
    if reason:
        pytest.skip(reason)
    assert (holes, refusal) == ([], "")
    assert found["uid"] == (NOBODY_HERE if os.geteuid() == 0 else os.geteuid())
    assert not any(found[name] for name in ("settings", "outside", "own", "user_namespace"))


@as_root
def test_no_service_runs_as_root_even_if_planned() -> None:
    command = [sys.executable, "-I", "-S", confine.__file__, "-", sys.executable, "-c", "print('ran')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (confine.REFUSED, "")
    assert "A service never runs as root." in done.stderr


@as_root
def test_deploying_is_rejected_if_the_service_user_cannot_reach_the_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sandbox.trial.cache_clear()
    # Not in pytest's folder, whose path may be too long for sockets. Other users can't enter a TemporaryDirectory.
    with tempfile.TemporaryDirectory(prefix="i") as closed, Site(Path(closed, "data")) as site:
        engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data)
        with pytest.raises(EngineRefusedError, match=r"Services never run as root, and user .* Install bubblewrap"):
            engine.apply(Revision(str(uuid.uuid4()), 1, make_image(engine.store)))
    sandbox.trial.cache_clear()


@as_root
def test_the_launcher_grants_access_to_one_group_only(tmp_path: Path) -> None:
    target = tmp_path / "mms" / "rootfs" / "app"
    target.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "mms", tmp_path / "mms" / "rootfs"):
        folder.chmod(0o700)
    launch.open_passage(str(tmp_path), [str(target)], sandbox.SERVICE_GID)
    for folder in (tmp_path, tmp_path / "mms", tmp_path / "mms" / "rootfs"):
        found = folder.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o710, 0, sandbox.SERVICE_GID)
    assert stat.S_IMODE(tmp_path.parent.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_the_kernel_accepts(machine: str) -> None:
    program = confine.seccomp_filter(machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096
    assert errno.EPERM == confine.EPERM
    assert confine.seccomp_filter("riscv64") == b""


# --- limits -----------------------------------------------------------------------------------------------------------

SMALL = Resources(memory=128 * 1024**2, tasks=40, temporary=32 * 1024**2)
MEMORY_MESSAGE = "It used more than 128 MB of memory and was stopped."
INIT = "import mmap, os, threading, time\nkept = []\ndef run(body): return kept\ndef init():\n"
GREEDY = {
    "its own memory": "for _ in range(160): kept.append(b'x' * 2**20)",
    "memory of several processes": "if all(os.fork() for _ in range(3)): pass\n    else: kept.append(b'x' * 2**26)",
    "shared memory": "kept.append(mmap.mmap(-1, 2**28))\n    for at in range(0, 2**28, 4096): kept[0][at] = 1",
}


@pytest.fixture
def limited(engine: ProcessEngine, site: Site) -> ProcessEngine:
    """Return an engine with low limits."""
    return ProcessEngine(site.mms, site.run, site.socket, hidden=site.data, resources=SMALL)


def crashed(engine: ProcessEngine, revision: Revision) -> Observation | None:
    engine.guard.check()
    seen = engine.observe(revision.service_id, 1)
    return seen if seen.health == Health.CRASHED else None


@pytest.mark.parametrize("how", GREEDY)
def test_a_service_above_its_memory_limit_is_stopped_and_says_so(limited: ProcessEngine, how: str) -> None:
    driver = f"{INIT}    {GREEDY[how]}\n    time.sleep(60)\n"
    revision = Revision(str(uuid.uuid4()), 1, make_image(limited.store, driver))
    neighbour = applied(limited, HOSTILE)
    limited.apply(revision)
    seen = wait_until(lambda: crashed(limited, revision), 30)
    assert seen.detail == MEMORY_MESSAGE
    assert seen.is_unrecoverable
    assert seen.is_out_of_memory
    assert MEMORY_MESSAGE in limited.last_lines(revision.service_id, 1, 20)
    assert healthy(limited, neighbour)


@pytest.mark.slow
def test_a_stopped_service_that_starts_again_still_says_why(limited: ProcessEngine) -> None:
    driver = f"{INIT}    {GREEDY['its own memory']}\n    time.sleep(60)\n"
    revision = Revision(str(uuid.uuid4()), 1, make_image(limited.store, driver))
    limited.apply(revision)
    wait_until(lambda: crashed(limited, revision), 30)
    again = wait_until(lambda: started_again(limited, revision), 30)
    assert again.detail.startswith(f"{MEMORY_MESSAGE} It is starting again.")


def started_again(engine: ProcessEngine, revision: Revision) -> Observation | None:
    seen = engine.observe(revision.service_id, 1)
    return seen if seen.health == Health.STARTING else None


def test_a_service_that_gets_no_memory_says_so(limited: ProcessEngine) -> None:
    revision = Revision(str(uuid.uuid4()), 1, make_image(limited.store, f"{INIT}    bytearray(2**30)\n"))
    limited.apply(revision)
    seen = wait_until(lambda: crashed(limited, revision), 30)
    assert seen.detail == "It exited because it needed more than 128 MB of memory, the limit of a service."


def test_memory_that_processes_share_is_counted_once(limited: ProcessEngine) -> None:
    driver = (
        f"{INIT}    kept.append('x' * 2**26)\n    for _ in range(5): os.fork() or time.sleep(60)\n    kept.clear()\n"
    )
    revision = applied(limited, driver)
    limited.guard.check()
    assert healthy(limited, revision)


def test_the_number_of_processes_and_threads_is_limited(limited: ProcessEngine) -> None:
    forks = "while len(kept) < 200: kept.append(os.fork() or time.sleep(60))"
    threads = "while len(kept) < 200: kept.append(1) or threading.Thread(target=time.sleep, args=(60,)).start()"
    sandboxed = not sandbox.unavailable_reason(limited.hidden)
    for greedy in (forks, threads):
        driver = f"{INIT}    try:\n        {greedy}\n    except (OSError, RuntimeError): pass\n"
        if sandboxed or os.geteuid() == 0:
            assert 20 < len(score(limited, applied(limited, driver))) < SMALL.tasks
        else:
            revision = Revision(str(uuid.uuid4()), 1, make_image(limited.store, driver))
            limited.apply(revision)
            seen = wait_until(partial(crashed, limited, revision), 30)
            assert seen.detail == "It used more than 40 processes and threads and was stopped."


def test_files_cpus_and_priorities_are_limited(limited: ProcessEngine) -> None:
    driver = """
import errno, os, resource, shutil
def attempt(what):
    try:
        return what()
    except OSError as error:
        return errno.errorcode[error.errno]
def fill(folder):
    with open(folder + "/file", "wb", buffering=0) as file:
        while True: file.write(bytes(2**20))
def lower():
    with open("/proc/self/oom_score_adj", "w") as file: file.write("0")
def init(): pass
def run(body):
    return {
        "tmp": shutil.disk_usage("/tmp").total, "shm": shutil.disk_usage("/dev/shm").total,
        "fill tmp": attempt(lambda: fill("/tmp")) if body == "1" else "",
        "devices": attempt(lambda: open("/dev/attempt", "w")),
        "cpus": len(os.sched_getaffinity(0)), "more cpus": attempt(lambda: os.sched_setaffinity(0, range(64))),
        "oom": int(open("/proc/self/oom_score_adj").read()), "lower oom": attempt(lower),
        "memfd": attempt(lambda: os.memfd_create("x")), "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "nice": attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, -1)),
    }
"""
    sandboxed = not sandbox.unavailable_reason(limited.hidden)
    revision = applied(limited, driver.replace('body == "1"', str(sandboxed)))
    said = score(limited, revision)
    if sandboxed:
        assert (said["tmp"], said["fill tmp"]) == (SMALL.temporary, "ENOSPC")
        assert said["shm"] == sandbox.MAX_SHARED_MEMORY_BYTES
        assert said["devices"] == "EROFS"
    cpus = os.cpu_count() or 1
    assert said["cpus"] == max(1, cpus - 1)
    assert (said["more cpus"], said["memfd"]) == ("EPERM", "EPERM")
    assert said["oom"] == 1000
    if sandboxed:  # without one, the kernel accepts any value that isn't below the site's
        assert said["lower oom"] == "EROFS"
    assert said["files"] == MAX_OPEN_FILES
    assert said["nice"] in {"EACCES", "EPERM"}


@needs_bubblewrap
def test_a_service_with_very_many_temporary_files_is_stopped(
    limited: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox.unavailable_reason(limited.hidden):
        pytest.skip("temporary files aren't limited without a sandbox")
    monkeypatch.setattr(guard, "MAX_TEMPORARY_FILES", 500)
    driver = f"{INIT}    for at in range(1000): os.close(os.open(f'/tmp/{{at}}', os.O_CREAT))\n    time.sleep(60)\n"
    revision = Revision(str(uuid.uuid4()), 1, make_image(limited.store, driver))
    limited.apply(revision)
    seen = wait_until(lambda: crashed(limited, revision), 30)
    assert seen.detail == "It created more than 500 temporary files and was stopped."
