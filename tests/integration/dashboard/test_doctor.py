"""Checks of the doctor: each reports a broken part and how to fix it."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from django.conf import settings as django_settings
from django.db import connection, connections
from django.utils import timezone

from dashboard.ops import doctor
from dashboard.ops.doctor import CheckContext, Finding, State, mounts, run
from dashboard.ops.doctor.checks import database, disk, engine, operations, programs, redis, servers, versions
from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.programs import redis_server as redis_binary
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State as OperationState
from mms.engines.process import attempts, sandbox
from mms.models import Revision, Service
from tests import supervised
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.ports import free_port
from tests.site import OURS, ROOT, wait_until
from tests.support import mms_rows
from tests.support.clock import quiet_seconds
from tests.support.lifecycle import account_at, register

QUICK, THOROUGH = CheckContext(), CheckContext(thorough=True)
PROGRAMS = ["beat:dashboard+mms", "worker:celery", "worker:mms"]


def problems(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state != State.OK]


def only(findings: Iterable[Finding]) -> Finding:
    """Return the only problem."""
    found = problems(findings)
    assert len(found) == 1, found
    return found[0]


# --- the database -------------------------------------------------------------------------------------------------


@pytest.fixture
def file(transactional_db: None) -> Path:
    return Path(connection.settings_dict["NAME"])


def check_database_at(path: Path, context: CheckContext = QUICK) -> list[Finding]:
    """Check the database at `path`, in a thread because it has no connection yet."""
    found: list[Finding] = []

    def check() -> None:
        found.extend(database.check(context))
        connections.close_all()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.settings["default"], "NAME", str(path))
        thread = threading.Thread(target=check)
        thread.start()
        thread.join(20)
    return found


def test_a_healthy_database_passes_down_to_the_last_page(file: Path) -> None:
    findings = list(database.check(THOROUGH))
    assert not problems(findings)
    assert "Every page of the file is intact" in findings[-1].message


def test_a_killed_restore_is_reported_with_the_command_that_completes_it(
    file: Path, settings: Any, tmp_path: Path
) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "restore_unfinished").write_text("manage.py restore my.tar\n")
    finding = only(database.check(QUICK))
    assert finding.state == State.FAILED
    assert "`manage.py restore my.tar`" in finding.advice


@contextmanager
def write_lock(file: Path) -> Iterator[sqlite3.Connection]:
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield holder
    finally:
        holder.close()


@pytest.mark.slow
def test_a_locked_database_is_reported_within_three_seconds_with_the_process(file: Path) -> None:
    with write_lock(file):
        started = time.monotonic()
        finding = only(database.check(QUICK))
    assert quiet_seconds(time.monotonic() - started) < 3
    assert finding.state == State.FAILED
    assert "has held the write lock" in finding.message
    assert f"process {os.getpid()} (" in finding.advice


def test_a_writer_that_holds_the_lock_long_is_a_warning(file: Path) -> None:
    with write_lock(file) as holder:
        threading.Timer(0.8, holder.execute, ["ROLLBACK"]).start()
        finding = only(database.check(QUICK))
    assert finding.state == State.WARNING
    assert "another writer" in finding.message


def test_older_and_newer_tables_than_those_of_this_release_are_reported(file: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_migrations SET name = '9999_future' WHERE app = 'mms' AND name LIKE '0002%'")
    try:
        older, newer = problems(database.check(QUICK))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE django_migrations SET name = '0002_request_digest_and_attempts' WHERE name = '9999_future'"
            )
    assert "1 migration not applied (mms.0002_request_digest_and_attempts)" in older.message
    assert "Restart the site" in older.advice
    assert "mms.9999_future" in newer.message


def test_a_missing_database_is_reported_and_not_created(db: None, tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    assert "There is no database" in only(check_database_at(path)).message
    assert not path.exists()


def test_a_damaged_file_is_found_when_every_page_is_read(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy, isolation_level=None)) as target:
        source.backup(target)
        target.execute("VACUUM")  # otherwise the last pages may be unused, and damage there has no effect
        target.executescript("CREATE TABLE much AS SELECT randomblob(50000)")
        target.execute("INSERT INTO much SELECT hex(randomblob(500)) FROM django_migrations")
    with copy.open("r+b") as damaged:
        damaged.seek(-4 * 4096, os.SEEK_END)
        damaged.write(b"\xff" * 4 * 4096)
    finding = only(check_database_at(copy, THOROUGH))
    assert "damaged" in finding.message
    assert "manage.py restore" in finding.advice


def test_a_file_that_is_not_a_database_is_reported_without_a_traceback(db: None, tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    path.write_bytes(b"not a database at all" * 500)
    finding = only(check_database_at(path))
    assert "Not responding: file is not a database" in finding.message


def test_the_mount_of_a_path_is_the_nearest() -> None:
    lines = [
        "22 1 8:1 / / rw - ext4 /dev/sda rw",
        r"23 22 0:40 / /srv/two\040words rw shared:1 - nfs4 server:/x rw",
        "24 22 0:41 / /srv rw - tmpfs tmpfs rw",
    ]
    assert mounts.find_mount(Path("/srv/two words/data"), "\n".join(lines)).type in mounts.REMOTE_TYPES
    assert mounts.find_mount(Path("/srv/data"), "\n".join(lines)).type == "tmpfs"
    assert mounts.find_mount(Path("/home"), "\n".join(lines)).type == "ext4"


def test_a_database_on_a_network_file_system_has_failed(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("22 1 8:1 / / rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    finding = only(database.check(QUICK))
    assert finding.state == State.FAILED
    assert "(nfs4)" in finding.message


# --- Redis --------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_redis(tmp_path: Path, settings: Any) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Return a function that starts a Redis server with options and sets REDIS_URL to it."""
    started = []
    folder = tmp_path / "redis"
    folder.mkdir()

    def start(*options: str) -> "subprocess.Popen[bytes]":
        socket = tmp_path / "r.sock"
        command = [redis_binary(), "--unixsocket", str(socket), "--dir", str(folder), "--save", "", "--port", "0"]
        started.append(subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL))
        settings.REDIS_URL = f"unix://{socket}"
        wait_until(socket.exists, 10, "the socket of Redis")
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def test_a_healthy_redis_passes(live_redis: redis_client.Redis) -> None:
    assert not problems(redis.check(QUICK))


def test_an_unreachable_redis_is_reported_with_its_address(settings: Any, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    finding = only(redis.check(QUICK))
    assert finding.state == State.FAILED
    assert f"{tmp_path}/nobody.sock: No such file or directory" in finding.message
    assert finding.advice


@pytest.mark.slow
def test_a_hanging_redis_is_reported_within_three_seconds(start_redis: Any) -> None:
    process, started = start_redis(), time.monotonic()
    process.send_signal(signal.SIGSTOP)
    finding = only(redis.check(QUICK))
    assert quiet_seconds(time.monotonic() - started) < 3
    assert "within 2 s" in finding.message


def test_a_redis_that_evicts_keys_has_failed(start_redis: Any) -> None:
    start_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    finding = only(redis.check(QUICK))
    assert finding.state == State.FAILED
    assert "allkeys-lru" in finding.message
    assert "maxmemory-policy noeviction" in finding.advice


def test_an_eviction_policy_without_a_memory_limit_is_a_warning(start_redis: Any) -> None:
    start_redis("--maxmemory-policy", "volatile-ttl")
    assert only(redis.check(QUICK)).state == State.WARNING


def test_a_redis_out_of_memory_or_nearly_so_is_reported(start_redis: Any, settings: Any) -> None:
    start_redis("--maxmemory", "100mb")
    with redis.connect() as link:
        link.config_set("maxmemory", int(link.info()["used_memory"] * 1.15))
        nearly = only(redis.check(QUICK))
        link.config_set("maxmemory", 1000)
    full = problems(redis.check(QUICK))
    assert (nearly.state, "Raise `maxmemory`" in nearly.advice) == (State.WARNING, True)
    assert full[0].state == State.FAILED
    assert "no task can be queued" in full[0].message


def test_a_read_only_replica_is_reported(start_redis: Any) -> None:
    start_redis("--replicaof", "127.0.0.1", "1")
    assert "read-only replica" in problems(redis.check(QUICK))[0].message


def test_a_redis_that_cannot_save_is_reported(start_redis: Any, tmp_path: Path) -> None:
    start_redis("--save", "3600 1")
    with redis.connect() as link:
        link.set("a", 1)
        shutil.rmtree(tmp_path / "redis")
        link.execute_command("BGSAVE")
        wait_until(lambda: link.info()["rdb_last_bgsave_status"] == "err", 10, "the save to fail")
    messages = [finding.message for finding in problems(redis.check(QUICK))]
    assert any("Writes are rejected: MISCONF" in message for message in messages), messages
    assert any("write to disk failed" in message for message in messages), messages


def test_a_wrong_password_is_reported_but_not_shown(start_redis: Any, settings: Any) -> None:
    port = free_port()
    start_redis("--port", str(port), "--requirepass", "the right one")
    settings.REDIS_URL = f"redis://:the-wrong-one@127.0.0.1:{port}/0"
    finding = only(redis.check(QUICK))
    assert "Rejected the connection" in finding.message
    assert "the-wrong-one" not in f"{finding}"


def test_a_redis_on_the_network_without_a_password_is_a_warning(start_redis: Any, settings: Any) -> None:
    port = free_port()
    start_redis("--port", str(port), "--protected-mode", "no")
    settings.REDIS_URL = f"redis://0.0.0.0:{port}/0"  # an address of this machine but not a loopback address
    finding = only(redis.check(QUICK))
    assert finding.state == State.WARNING
    assert "without a password" in finding.message


@pytest.mark.parametrize(("off", "state"), [(0.5, State.OK), (5, State.WARNING), (-60, State.FAILED)])
def test_a_wrong_clock_is_reported(off: float, state: State) -> None:
    class Elsewhere:
        def time(self) -> tuple[int, int]:
            return int(time.time() + off), int((time.time() + off) % 1 * 1e6)

    assert redis.check_clock(Elsewhere()).state == state  # type: ignore[arg-type]


# --- worker and beat ----------------------------------------------------------------------------------------------


@pytest.fixture
def signs(live_redis: redis_client.Redis) -> redis_client.Redis:
    """Write a recent heartbeat of every program."""
    for name in PROGRAMS:
        heartbeat.write(live_redis, name, time.time())
    return live_redis


def put(link: redis_client.Redis, name: str, ago: float, worked_ago: float = 0) -> None:
    now = time.time()
    link.set(f"heartbeat:{name}", f"{now - ago} {now - worked_ago}")


def test_programs_with_recent_heartbeats_pass(signs: redis_client.Redis) -> None:
    assert not problems(programs.check(QUICK))


@pytest.mark.parametrize(
    ("name", "part"), [("beat:dashboard+mms", "beat"), ("worker:celery", "worker"), ("worker:mms", "mms-worker")]
)
def test_only_the_stopped_program_is_reported_with_its_log(signs: redis_client.Redis, name: str, part: str) -> None:
    put(signs, name, ago=heartbeat.STALE_SECONDS + 1)
    finding = only(programs.check(QUICK))
    assert (finding.part, finding.state) == (part, State.FAILED)
    assert "No heartbeat for 13 s" in finding.message
    assert f"/log/{part}.log" in finding.advice


def test_a_stalled_worker_is_distinguished_from_a_stopped_one(signs: redis_client.Redis) -> None:
    put(signs, "worker:mms", ago=0, worked_ago=heartbeat.IDLE_SECONDS + 5)
    finding = only(programs.check(QUICK))
    assert finding.part == "mms-worker"
    assert "receives no messages" in finding.message


def test_a_long_queue_is_a_warning(signs: redis_client.Redis) -> None:
    signs.lpush("celery", *range(programs.LONG_QUEUE + 1))
    finding = only(programs.check(QUICK))
    assert finding.state == State.WARNING
    assert "101 tasks wait in queue celery" in finding.message


def test_a_task_that_no_worker_runs_is_reported_and_expires(signs: redis_client.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(programs, "ROUND_TRIP_SECONDS", 0.3)
    found = problems(programs.check(THOROUGH))
    assert [finding.part for finding in found] == ["worker", "mms-worker"]
    assert json.loads(signs.lindex("celery", 0) or "")["headers"]["expires"]
    assert signs.llen("mms") == 1


def test_programs_are_unknown_while_redis_is_unreachable(settings: Any, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    found = list(programs.check(QUICK))
    assert {(finding.part, finding.state) for finding in found} == {
        (part, State.UNKNOWN) for part in ("beat", "worker", "mms-worker")
    }


# --- accounts and operations --------------------------------------------------------------------------------------


@pytest.fixture
def account(db: None, mms: MMS, live_redis: redis_client.Redis) -> HostingAccount:
    return seen(account_at(mms.url), 5)


def seen(account: HostingAccount, seconds_ago: float, **more: Any) -> HostingAccount:
    """Store the account as if its server last responded `seconds_ago`."""
    then = timezone.now() - timedelta(seconds=seconds_ago)
    lists = {f"{noun}_seen_at": then for noun in servers.LISTS}
    HostingAccount.objects.filter(pk=account.pk).update(reached_at=then, **{**lists, **more})
    account.refresh_from_db()
    return account


def test_a_server_that_responds_passes_and_so_does_a_call(account: HostingAccount) -> None:
    found = list(servers.check(THOROUGH))
    assert not problems(found)
    assert "listed 0 services" in found[-1].message


def test_a_failing_server_is_reported_with_the_reason_and_the_time(account: HostingAccount) -> None:
    now = timezone.now()
    trouble = {"error": "It is out.", "error_at": now - timedelta(minutes=3), "not_before": now + timedelta(seconds=20)}
    seen(account, 180, **trouble)
    finding = only(servers.check(QUICK))
    assert finding.state == State.FAILED
    assert finding.message.startswith("It is out. This began 3 min ago.")
    assert account.base_url in finding.advice


def test_a_rejected_token_is_reported_with_how_to_replace_it(account: HostingAccount) -> None:
    seen(account, 100, token_refused=True, error="401", error_at=timezone.now())
    finding = only(servers.check(QUICK))
    assert "rejects the token" in finding.message
    assert "replace_token" in finding.advice


@pytest.mark.parametrize("trouble", ["", "It is out."])
def test_the_state_of_a_server_that_no_worker_contacts_is_unknown(account: HostingAccount, trouble: str) -> None:
    old = timezone.now() - timedelta(minutes=20)
    seen(account, 1200, error=trouble, error_at=old if trouble else None, not_before=old if trouble else None)
    finding = only(servers.check(QUICK))
    assert finding.state == State.UNKNOWN
    assert "Workers contact the servers" in finding.advice
    assert "20 min ago" in finding.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [(faults.status(401), "rejected this account’s token"), (faults.status(500), "failed (status 500)")],
)
def test_a_test_call_reports_the_response(account: HostingAccount, mms: MMS, fault: Any, words: str) -> None:
    mms.plan("GET", "services", fault)
    finding = only(servers.check(THOROUGH))
    assert words.replace("’", "'") in finding.message.replace("’", "'")
    assert MMS.token not in f"{finding}"


@pytest.mark.slow
def test_a_hanging_server_delays_doctor_only_for_seconds(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "services", faults.hang(20))
    started = time.monotonic()
    finding = only(servers.check(THOROUGH))
    assert quiet_seconds(time.monotonic() - started) < 6
    assert "was not complete after 3 s" in finding.message


def test_a_server_that_requested_a_pause_is_not_called(account: HostingAccount, mms: MMS) -> None:
    seen(account, 5, error="It is busy.", error_at=timezone.now(), not_before=timezone.now() + timedelta(minutes=10))
    found = problems(servers.check(THOROUGH))
    assert "requested a pause" in found[-1].message
    assert mms.calls("GET") == []


def test_only_the_accounts_in_the_context_are_named(account: HostingAccount, mms: MMS) -> None:
    other = account_at(mms.url, "other")
    parts = {finding.part for finding in servers.check(CheckContext(frozenset({other.pk})))}
    assert parts == {"account other"}
    register(account)
    Operation.objects.update(next_poll_at=timezone.now() - timedelta(minutes=2))
    assert [finding.part for finding in operations.check(CheckContext(frozenset({other.pk})))] == ["operations"]


def test_operations_that_cannot_continue_on_their_own_are_counted(account: HostingAccount) -> None:
    ids = [register(account, name=f"model-{number}").pk for number in range(3)]
    past = timezone.now() - timedelta(minutes=2)
    rows = Operation.objects
    rows.filter(pk=ids[0]).update(next_poll_at=past)
    rows.filter(pk=ids[1]).update(state=OperationState.UNCERTAIN, error_code="NeedsDecision", next_poll_at=None)
    rows.filter(pk=ids[2]).update(state=OperationState.RUNNING, mms_operation_id="x", next_poll_at=None)
    untaken, undecided, stopped = problems(operations.check(QUICK))
    assert untaken.state == State.FAILED
    assert "1 operation queued for more than 18 s" in untaken.message
    assert "which a user has to resolve" in undecided.message
    assert undecided.page == f"/accounts/{account.name}/operations/?state=uncertain"
    assert "Check again" in stopped.advice


# --- the engine ---------------------------------------------------------------------------------------------------


@pytest.fixture
def supervisor(tmp_path: Path, settings: Any) -> Iterator[supervised.Site]:
    with supervised.Site(tmp_path / "data") as running:
        settings.SUPERVISOR_SOCKET = str(running.socket)
        yield running


def test_a_stopped_supervisor_is_reported(db: None, settings: Any, tmp_path: Path) -> None:
    settings.SUPERVISOR_SOCKET = str(tmp_path / "nobody.sock")
    finding = problems(engine.check(QUICK))[0]
    assert (finding.part, finding.state) == ("supervisor", State.FAILED)
    assert "make up" in finding.advice


def test_a_program_that_exits_after_every_start_is_reported(db: None, supervisor: supervised.Site) -> None:
    section = "command={}\nstartsecs=1\nstartretries={}\nautorestart=true\n"
    text = f"[program:web]\n{section.format('/bin/false', 0)}[program:beat]\n{section.format('/bin/false', 1000)}"
    (supervisor.run / "services" / "x.conf").write_text(f"{text}[group:site]\nprograms=web,beat\n")
    supervisor.supervisor.add("site")

    def states() -> dict[str, str]:
        return {info["name"]: info["statename"] for info in supervisor.supervisor.programs()}

    wait_until(lambda: states() == {"web": "FATAL", "beat": "BACKOFF"}, 10, f"both to fail: {states()}")
    beat, web = sorted(problems(engine.check(QUICK)), key=lambda finding: finding.part)
    assert "keeps restarting" in beat.message
    assert "has given up" in web.message
    assert "start site:web" in web.advice


def test_services_that_are_not_healthy_are_named_to_administrators_only(db: None, supervisor: supervised.Site) -> None:
    image = mms_rows.image_operation().image
    assert image
    service = Service.objects.create(
        account=image.account, name="iris-live", image=image, health="crashed", pull_secret="local"
    )
    Revision.objects.create(service=service, number=1, image=image, state="active")
    for context, named in ((QUICK, True), (CheckContext(frozenset({1})), False)):
        finding = next(finding for finding in engine.check(context) if finding.part == "services")
        assert finding.state == State.FAILED
        assert finding.message.startswith("1 of 1 service is not healthy.")
        assert ("iris-live is crashed" in finding.message) is named


def test_operations_of_the_mms_without_a_worker_are_reported(db: None, supervisor: supervised.Site) -> None:
    operation = mms_rows.image_operation()
    type(operation).objects.update(created_at=timezone.now() - timedelta(minutes=5))
    assert "1 operation accepted more than 1 min ago that no worker has started" in only(engine.check(QUICK)).message


def sandbox_findings() -> list[Finding]:
    return [finding for finding in engine.check(QUICK) if finding.part == "sandbox"]


def test_holes_in_the_sandbox_are_tested_and_reported(
    db: None, supervisor: supervised.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "__file__", str(supervisor.data / "found.py"))
    found = {"uid": 0, "settings": ["/proc/sys/kernel/core_pattern"], "outside": [], "secretive": []}
    privileges = ("root", "capabilities", "new_privileges", "mount", "user_namespace", "own", "socket")
    rest = dict.fromkeys((*privileges, "memory", "temporary", "tasks", "cpus", "out_of_memory"), False)
    (supervisor.data / "found.py").write_text(f"import json; print(json.dumps({found | rest}))")
    finding = only(sandbox_findings())
    assert finding.state == State.FAILED
    assert finding.message == (
        "A test run as a service showed that a driver script can act as root, write kernel settings of this machine "
        "(/proc/sys/kernel/core_pattern)."
    )
    assert "Run the site as a user other than root" in finding.advice
    monkeypatch.undo()
    repaired = sandbox_findings()[0]
    assert repaired.state != State.FAILED, repaired
    if not sandbox.unavailable_reason(django_settings.DATA_DIR):
        assert "it can't write kernel settings" in repaired.message


def test_a_machine_on_which_no_service_can_run_is_reported(
    db: None, supervisor: supervised.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "service_user", lambda _: sandbox.User(12345, 12345))
    monkeypatch.setattr(sandbox, "trial", lambda _: sandbox.Trial(None, "bubblewrap is missing.", {}, "no Python"))
    monkeypatch.setattr(engine, "holes", lambda retry: [])
    finding = only(sandbox_findings())
    assert finding.state == State.FAILED
    assert finding.message == "Services never run as root, and can't run as user 12345 either: no Python."
    assert finding.advice.startswith("Install bubblewrap, or run the site as a user other than root")


def test_the_engine_is_not_checked_where_there_is_none(settings: Any) -> None:
    settings.SERVE = {"dashboard"}
    assert list(engine.check(QUICK)) == []


# --- disk, versions, settings -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 64 MB with space for 40 files."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=40,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount file systems")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_one_without_inodes_have_failed(small_disk: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = small_disk
    room = only(disk.check(QUICK))
    assert room.state == State.FAILED
    assert str(small_disk) in room.message
    assert "manage.py prune" in room.advice
    for number in range(39):
        (small_disk / str(number)).touch()
    assert "0 more files" in problems(disk.check(QUICK))[1].message


def test_a_disk_with_little_space_is_a_warning(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    tmp_path.chmod(0o700)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    monkeypatch.setattr(disk, "LOW_BYTES", free + disk.GB)
    assert only(disk.check(QUICK)).state == State.WARNING


def test_files_that_others_can_read_are_reported_with_the_command_that_fixes_it(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    (tmp_path / "secret_key").write_text("x")
    (tmp_path / "secret_key").chmod(0o640)
    tmp_path.chmod(0o755)
    key, folder = [finding for finding in problems(disk.check(QUICK)) if finding.part == "secrets"]
    assert (key.state, folder.state) == (State.FAILED, State.WARNING)
    assert f"chmod 600 {tmp_path}/secret_key" in key.advice
    assert f"chmod 700 {tmp_path}" in folder.advice


def test_the_largest_directories_are_listed_first(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    for name, count in (("little", 10), ("much", 500)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * count * 1024)
    disk._measure_directories.cache_clear()
    message = next(finding.message for finding in disk.check(QUICK) if finding.part == "data")
    assert message.index("much") < message.index("little")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEBUG", True, "DEBUG is on"),
        ("SITE_URL", "http://testserver", "unencrypted"),
        ("SITE_URL", "https://models.example", "not in ALLOWED_HOSTS"),
    ],
)
def test_wrong_settings_are_reported(settings: Any, name: str, value: Any, words: str) -> None:
    setattr(settings, name, value)
    settings.ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
    assert words in only(versions.check(QUICK)).message


# --- all of it ----------------------------------------------------------------------------------------------------


def test_a_check_that_fails_or_hangs_is_a_finding_and_delays_no_other(monkeypatch: Any, caplog: Any) -> None:
    def broken(context: CheckContext) -> Iterator[Finding]:
        yield Finding("broken", State.OK, "So far so good.")
        raise ZeroDivisionError("of something")

    def hanging(context: CheckContext) -> Iterator[Finding]:
        yield Finding("hanging", State.OK, "So far so good.")
        time.sleep(2)

    monkeypatch.setattr(run, "CHECKS", {"broken": broken, "hanging": hanging, "versions": versions.check})
    monkeypatch.setattr(run, "QUICK_SECONDS", 0.3)
    started = time.monotonic()
    found = doctor.run_checks(QUICK)
    assert quiet_seconds(time.monotonic() - started) < 1
    broke, hung = problems(found)
    assert "ZeroDivisionError: of something" in broke.message
    assert "Not complete after" in hung.message
    assert [finding.part for finding in found].count("versions") == 2
    assert "The check of broken failed" in caplog.text


def run_doctor(data: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    command = [sys.executable, "manage.py", "doctor", *words]
    values = {**kept, "DATA_DIR": str(data), "PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    return subprocess.run(command, cwd=ROOT, env=values | environment, capture_output=True, text=True, timeout=60)


def test_the_command_works_when_nothing_else_does(tmp_path: Path) -> None:
    done = run_doctor(tmp_path / "data", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    answer = json.loads(done.stdout)
    states = {finding["part"]: finding["state"] for finding in answer["findings"]}
    assert answer["ok"] is False
    assert {part for part, state in states.items() if state == "failed"} == {
        "database", "Redis", "supervisor", "web", "gateway"
    }  # fmt: skip
    assert {states["worker"], states["accounts"], states["operations"]} == {"unknown"}
    assert not (tmp_path / "data" / "db.sqlite3").exists()


def test_the_table_lists_failures_with_advice(tmp_path: Path) -> None:
    done = run_doctor(tmp_path / "data")
    assert done.returncode == 1
    assert "✗ database" in done.stdout
    assert "→ Start the site to create it: `make up`." in done.stdout
    assert "✓ versions" in done.stdout


def test_an_unreachable_database_server_and_redis_are_reported_without_passwords(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    urls = {"DATABASE_URL": f"postgres://me:pg-secret@{nobody}/x", "REDIS_URL": f"redis://:rd-secret@{nobody}/0"}
    done = run_doctor(tmp_path / "data", **urls)
    assert (done.returncode, done.stderr) == (1, "")
    assert "✗ database         Not responding" in done.stdout
    assert f"✗ Redis            Redis can't be reached at {nobody}" in done.stdout
    assert "secret" not in done.stdout.replace("secrets", "").replace("secret key", "").replace("secret_key", "")


@pytest.mark.parametrize("what", ["data folder", "secret key"])
def test_an_unusable_data_folder_is_reported_in_one_sentence(what: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    if what == "data folder":
        data.write_text("a file where a folder should be")
    else:
        (data / "secret_key").mkdir(parents=True)
    done = run_doctor(data)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
