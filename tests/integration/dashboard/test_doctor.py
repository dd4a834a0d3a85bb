"""Each check against a thing that is really broken: it is named, and it is said what to do."""

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
from dashboard.ops.doctor import Asked, Finding, State, mounts, run
from dashboard.ops.doctor.checks import database, disk, engine, operations, programs, redis, servers, versions
from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.programs import redis_server as redis_binary
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State as OperationState
from mms.engines.process import sandbox
from mms.models import Revision, Service
from tests import supervised
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.ports import free_port
from tests.site import OURS, ROOT, wait_until
from tests.support import mms_rows
from tests.support.lifecycle import account_at, register

QUICK, THOROUGH = Asked(), Asked(thorough=True)
PROGRAMS = ["beat:dashboard+mms", "worker:celery", "worker:mms"]


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state != State.OK]


def only(findings: Iterable[Finding]) -> Finding:
    """The one thing that is not in order."""
    found = wrong(findings)
    assert len(found) == 1, found
    return found[0]


# --- the database -------------------------------------------------------------------------------------------------


@pytest.fixture
def file(transactional_db: None) -> Path:
    return Path(connection.settings_dict["NAME"])


def elsewhere(path: Path, asked: Asked = QUICK) -> list[Finding]:
    """What the check says of the database at `path`, asked in a thread, which has no connection yet."""
    found: list[Finding] = []

    def look() -> None:
        found.extend(database.check(asked))
        connections.close_all()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.settings["default"], "NAME", str(path))
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(20)
    return found


def test_a_healthy_database_is_in_order_to_the_last_page(file: Path) -> None:
    findings = list(database.check(THOROUGH))
    assert not wrong(findings)
    assert "Every page of the file is sound" in findings[-1].says


def test_a_restore_that_was_killed_is_named_with_the_command_that_ends_it(
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
def test_a_locked_database_is_named_within_three_seconds_with_who_holds_it(file: Path) -> None:
    with write_lock(file):
        started = time.monotonic()
        finding = only(database.check(QUICK))
    assert time.monotonic() - started < 3
    assert finding.state == State.FAILED
    assert "held the write lock" in finding.says
    assert f"process {os.getpid()} (" in finding.advice


def test_a_writer_that_holds_the_lock_for_long_is_a_warning(file: Path) -> None:
    with write_lock(file) as holder:
        threading.Timer(0.8, holder.execute, ["ROLLBACK"]).start()
        finding = only(database.check(QUICK))
    assert finding.state == State.WARNING
    assert "another writer" in finding.says


def test_tables_that_are_older_or_newer_than_this_version_are_named(file: Path) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_migrations SET name = '9999_future' WHERE app = 'mms' AND name LIKE '0002%'")
    try:
        older, newer = wrong(database.check(QUICK))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE django_migrations SET name = '0002_request_digest_and_attempts' WHERE name = '9999_future'"
            )
    assert "1 migration not applied (mms.0002_request_digest_and_attempts)" in older.says
    assert "Restart the site" in older.advice
    assert "mms.9999_future" in newer.says


def test_a_database_that_is_not_there_is_not_made(db: None, tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    assert "There is no database" in only(elsewhere(path)).says
    assert not path.exists()


def test_a_damaged_file_is_found_when_every_page_is_read(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy, isolation_level=None)) as target:
        source.backup(target)
        target.execute("VACUUM")  # else the last pages may be free ones, where nothing can be damaged
        target.executescript("CREATE TABLE much AS SELECT randomblob(50000)")
        target.execute("INSERT INTO much SELECT hex(randomblob(500)) FROM django_migrations")
    with copy.open("r+b") as damaged:
        damaged.seek(-4 * 4096, os.SEEK_END)
        damaged.write(b"\xff" * 4 * 4096)
    finding = only(elsewhere(copy, THOROUGH))
    assert "damaged" in finding.says
    assert "manage.py restore" in finding.advice


def test_a_file_that_is_no_database_is_no_trace(db: None, tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    path.write_bytes(b"not a database at all" * 500)
    finding = only(elsewhere(path))
    assert "does not answer: file is not a database" in finding.says


def test_the_disk_of_a_path_is_the_nearest_mount() -> None:
    lines = [
        "22 1 8:1 / / rw - ext4 /dev/sda rw",
        r"23 22 0:40 / /srv/two\040words rw shared:1 - nfs4 server:/x rw",
        "24 22 0:41 / /srv rw - tmpfs tmpfs rw",
    ]
    assert mounts.of(Path("/srv/two words/data"), "\n".join(lines)).kind in mounts.REMOTE
    assert mounts.of(Path("/srv/data"), "\n".join(lines)).kind == "tmpfs"
    assert mounts.of(Path("/home"), "\n".join(lines)).kind == "ext4"


def test_a_database_on_a_disk_of_another_machine_has_failed(file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("22 1 8:1 / / rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", table)
    finding = only(database.check(QUICK))
    assert finding.state == State.FAILED
    assert "(nfs4)" in finding.says


# --- Redis --------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_redis(tmp_path: Path, settings: Any) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """`start_redis("--maxmemory", "1mb")`: a server of the test's own, which REDIS_URL names."""
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


def test_a_healthy_redis_is_in_order(live_redis: redis_client.Redis) -> None:
    assert not wrong(redis.check(QUICK))


def test_a_redis_that_is_gone_is_named_with_its_place(settings: Any, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    finding = only(redis.check(QUICK))
    assert finding.state == State.FAILED
    assert f"{tmp_path}/nobody.sock: No such file or directory" in finding.says
    assert finding.advice


@pytest.mark.slow
def test_a_redis_that_hangs_is_named_within_three_seconds(start_redis: Any) -> None:
    process, started = start_redis(), time.monotonic()
    process.send_signal(signal.SIGSTOP)
    finding = only(redis.check(QUICK))
    assert time.monotonic() - started < 3
    assert "does not answer within 2 s" in finding.says


def test_a_redis_that_drops_keys_when_it_is_full_has_failed(start_redis: Any) -> None:
    start_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    finding = only(redis.check(QUICK))
    assert finding.state == State.FAILED
    assert "allkeys-lru" in finding.says
    assert "maxmemory-policy noeviction" in finding.advice


def test_a_wrong_policy_without_a_limit_is_a_warning(start_redis: Any) -> None:
    start_redis("--maxmemory-policy", "volatile-ttl")
    assert only(redis.check(QUICK)).state == State.WARNING


def test_a_redis_that_is_full_or_nearly_so_is_named(start_redis: Any, settings: Any) -> None:
    start_redis("--maxmemory", "100mb")
    with redis.connect() as link:
        link.config_set("maxmemory", int(link.info()["used_memory"] * 1.15))
        nearly = only(redis.check(QUICK))
        link.config_set("maxmemory", 1000)
    full = wrong(redis.check(QUICK))
    assert (nearly.state, "Raise `maxmemory`" in nearly.advice) == (State.WARNING, True)
    assert full[0].state == State.FAILED
    assert "no task can be queued" in full[0].says


def test_a_replica_is_named_for_it_only_reads(start_redis: Any) -> None:
    start_redis("--replicaof", "127.0.0.1", "1")
    assert "replica that only reads" in wrong(redis.check(QUICK))[0].says


def test_a_redis_that_cannot_save_is_named(start_redis: Any, tmp_path: Path) -> None:
    start_redis("--save", "3600 1")
    with redis.connect() as link:
        link.set("a", 1)
        shutil.rmtree(tmp_path / "redis")
        link.execute_command("BGSAVE")
        wait_until(lambda: link.info()["rdb_last_bgsave_status"] == "err", 10, "the save to fail")
    says = [finding.says for finding in wrong(redis.check(QUICK))]
    assert any("takes no writes: MISCONF" in sentence for sentence in says), says
    assert any("write to disk failed" in sentence for sentence in says), says


def test_a_wrong_password_is_named_and_not_shown(start_redis: Any, settings: Any) -> None:
    port = free_port()
    start_redis("--port", str(port), "--requirepass", "the right one")
    settings.REDIS_URL = f"redis://:the-wrong-one@127.0.0.1:{port}/0"
    finding = only(redis.check(QUICK))
    assert "refuses us" in finding.says
    assert "the-wrong-one" not in f"{finding}"


def test_a_redis_on_the_network_without_a_password_is_a_warning(start_redis: Any, settings: Any) -> None:
    port = free_port()
    start_redis("--port", str(port), "--protected-mode", "no")
    settings.REDIS_URL = f"redis://0.0.0.0:{port}/0"  # which leads here, and is no loopback address
    finding = only(redis.check(QUICK))
    assert finding.state == State.WARNING
    assert "without a password" in finding.says


@pytest.mark.parametrize(("off", "state"), [(0.5, State.OK), (5, State.WARNING), (-60, State.FAILED)])
def test_a_clock_that_goes_wrong_is_named(off: float, state: State) -> None:
    class Elsewhere:
        def time(self) -> tuple[int, int]:
            return int(time.time() + off), int((time.time() + off) % 1 * 1e6)

    assert redis.clock(Elsewhere()).state == state  # type: ignore[arg-type]


# --- worker and beat ----------------------------------------------------------------------------------------------


@pytest.fixture
def signs(live_redis: redis_client.Redis) -> redis_client.Redis:
    """Every program has just been heard of."""
    for name in PROGRAMS:
        heartbeat.write(live_redis, name, time.time())
    return live_redis


def put(link: redis_client.Redis, name: str, ago: float, worked_ago: float = 0) -> None:
    now = time.time()
    link.set(f"heartbeat:{name}", f"{now - ago} {now - worked_ago}")


def test_programs_that_were_just_heard_of_are_in_order(signs: redis_client.Redis) -> None:
    assert not wrong(programs.check(QUICK))


@pytest.mark.parametrize(
    ("name", "part"), [("beat:dashboard+mms", "beat"), ("worker:celery", "worker"), ("worker:mms", "mms-worker")]
)
def test_a_dead_program_is_named_alone_with_its_log(signs: redis_client.Redis, name: str, part: str) -> None:
    put(signs, name, ago=heartbeat.STALE_SECONDS + 1)
    finding = only(programs.check(QUICK))
    assert (finding.part, finding.state) == (part, State.FAILED)
    assert "No sign of life for 13 s" in finding.says
    assert f"/log/{part}.log" in finding.advice


def test_a_deaf_worker_is_told_from_a_dead_one(signs: redis_client.Redis) -> None:
    put(signs, "worker:mms", ago=0, worked_ago=heartbeat.IDLE_SECONDS + 5)
    finding = only(programs.check(QUICK))
    assert finding.part == "mms-worker"
    assert "deaf" in finding.says


def test_a_long_queue_is_a_warning(signs: redis_client.Redis) -> None:
    signs.lpush("celery", *range(programs.LONG + 1))
    finding = only(programs.check(QUICK))
    assert finding.state == State.WARNING
    assert "101 tasks wait in queue celery" in finding.says


def test_a_task_that_nobody_does_is_named_and_expires(signs: redis_client.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(programs, "ROUND_TRIP", 0.3)
    found = wrong(programs.check(THOROUGH))
    assert [finding.part for finding in found] == ["worker", "mms-worker"]
    assert json.loads(signs.lindex("celery", 0))["headers"]["expires"]
    assert signs.llen("mms") == 1


def test_nobody_is_blamed_while_redis_is_away(settings: Any, tmp_path: Path) -> None:
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
    """As if its server had answered then."""
    then = timezone.now() - timedelta(seconds=seconds_ago)
    lists = {f"{noun}_seen_at": then for noun in servers.LISTS}
    HostingAccount.objects.filter(pk=account.pk).update(reached_at=then, **{**lists, **more})
    account.refresh_from_db()
    return account


def test_a_server_that_answers_is_in_order_and_so_is_a_call(account: HostingAccount) -> None:
    found = list(servers.check(THOROUGH))
    assert not wrong(found)
    assert "it listed 0 services" in found[-1].says


def test_a_server_in_trouble_is_named_with_the_reason_and_since_when(account: HostingAccount) -> None:
    now = timezone.now()
    trouble = {"error": "It is out.", "error_at": now - timedelta(minutes=3), "not_before": now + timedelta(seconds=20)}
    seen(account, 180, **trouble)
    finding = only(servers.check(QUICK))
    assert finding.state == State.FAILED
    assert finding.says.startswith("It is out. This began 3 min ago.")
    assert account.base_url in finding.advice


def test_a_refused_token_is_named_with_how_to_replace_it(account: HostingAccount) -> None:
    seen(account, 100, token_refused=True, error="401", error_at=timezone.now())
    finding = only(servers.check(QUICK))
    assert "refuses the token" in finding.says
    assert "replace_token" in finding.advice


@pytest.mark.parametrize("trouble", ["", "It is out."])
def test_nothing_is_known_of_a_server_that_nobody_asks(account: HostingAccount, trouble: str) -> None:
    old = timezone.now() - timedelta(minutes=20)
    seen(account, 1200, error=trouble, error_at=old if trouble else None, not_before=old if trouble else None)
    finding = only(servers.check(QUICK))
    assert finding.state == State.UNKNOWN
    assert "asked" in finding.says
    assert "since 20 min ago" in finding.says


@pytest.mark.parametrize(
    ("fault", "words"),
    [(faults.status(401), "rejected this account’s token"), (faults.status(500), "failed (status 500)")],
)
def test_a_call_of_our_own_says_what_came_back(account: HostingAccount, mms: MMS, fault: Any, words: str) -> None:
    mms.plan("GET", "services", fault)
    finding = only(servers.check(THOROUGH))
    assert words.replace("’", "'") in finding.says.replace("’", "'")
    assert MMS.token not in f"{finding}"


@pytest.mark.slow
def test_a_server_that_hangs_costs_no_more_than_a_few_seconds(account: HostingAccount, mms: MMS) -> None:
    mms.plan("GET", "services", faults.hang(20))
    started = time.monotonic()
    finding = only(servers.check(THOROUGH))
    assert time.monotonic() - started < 6
    assert "was not complete after 3 s" in finding.says


def test_a_server_that_asked_to_be_left_alone_is_not_called(account: HostingAccount, mms: MMS) -> None:
    seen(account, 5, error="It is busy.", error_at=timezone.now(), not_before=timezone.now() + timedelta(minutes=10))
    found = wrong(servers.check(THOROUGH))
    assert "asked to be left alone" in found[-1].says
    assert mms.calls("GET") == []


def test_only_the_accounts_asked_about_are_named(account: HostingAccount, mms: MMS) -> None:
    other = account_at(mms.url, "other")
    parts = {finding.part for finding in servers.check(Asked(frozenset({other.pk})))}
    assert parts == {"account other"}
    register(account)
    Operation.objects.update(next_poll_at=timezone.now() - timedelta(minutes=2))
    assert [finding.part for finding in operations.check(Asked(frozenset({other.pk})))] == ["operations"]


def test_operations_that_do_not_go_on_by_themselves_are_counted(account: HostingAccount) -> None:
    ids = [register(account, name=f"model-{number}").pk for number in range(3)]
    past = timezone.now() - timedelta(minutes=2)
    rows = Operation.objects
    rows.filter(pk=ids[0]).update(next_poll_at=past)
    rows.filter(pk=ids[1]).update(state=OperationState.UNCERTAIN, error_code="NeedsDecision", next_poll_at=None)
    rows.filter(pk=ids[2]).update(state=OperationState.RUNNING, mms_operation_id="x", next_poll_at=None)
    untaken, undecided, stopped = wrong(operations.check(QUICK))
    assert untaken.state == State.FAILED
    assert "1 operation queued for more than 18 s" in untaken.says
    assert "a person has to decide" in undecided.says
    assert undecided.page == f"/accounts/{account.name}/operations/?state=uncertain"
    assert "Ask again" in stopped.advice


# --- the engine ---------------------------------------------------------------------------------------------------


@pytest.fixture
def supervisor(tmp_path: Path, settings: Any) -> Iterator[supervised.Site]:
    with supervised.Site(tmp_path / "data") as running:
        settings.SUPERVISOR_SOCKET = str(running.socket)
        yield running


def test_a_supervisor_that_is_gone_is_named(db: None, settings: Any, tmp_path: Path) -> None:
    settings.SUPERVISOR_SOCKET = str(tmp_path / "nobody.sock")
    finding = wrong(engine.check(QUICK))[0]
    assert (finding.part, finding.state) == ("supervisor", State.FAILED)
    assert "make up" in finding.advice


def test_a_program_that_does_not_stay_up_is_named(db: None, supervisor: supervised.Site) -> None:
    section = "command={}\nstartsecs=1\nstartretries={}\nautorestart=true\n"
    text = f"[program:web]\n{section.format('/bin/false', 0)}[program:beat]\n{section.format('/bin/false', 1000)}"
    (supervisor.run / "services" / "x.conf").write_text(f"{text}[group:site]\nprograms=web,beat\n")
    supervisor.supervisor.add("site")
    states = lambda: {info["name"]: info["statename"] for info in supervisor.supervisor.programs()}  # noqa: E731
    wait_until(lambda: states() == {"web": "FATAL", "beat": "BACKOFF"}, 10, f"both to fail: {states()}")
    beat, web = sorted(wrong(engine.check(QUICK)), key=lambda finding: finding.part)
    assert "started again and again" in beat.says
    assert "given it up" in web.says
    assert "start site:web" in web.advice


def test_services_that_are_not_healthy_are_named_to_administrators_only(db: None, supervisor: supervised.Site) -> None:
    image = mms_rows.image_operation().image
    service = Service.objects.create(
        account=image.account, name="iris-live", image=image, health="crashed", pull_secret="local"
    )
    Revision.objects.create(service=service, number=1, image=image, state="active")
    for asked, named in ((QUICK, True), (Asked(frozenset({1})), False)):
        finding = next(finding for finding in engine.check(asked) if finding.part == "services")
        assert finding.state == State.FAILED
        assert finding.says.startswith("1 of 1 service is not healthy.")
        assert ("iris-live is crashed" in finding.says) is named


def test_operations_of_the_mms_that_nobody_works_on_are_named(db: None, supervisor: supervised.Site) -> None:
    operation = mms_rows.image_operation()
    type(operation).objects.update(created_at=timezone.now() - timedelta(minutes=5))
    assert "1 operation more than 1 min ago that nobody works on" in only(engine.check(QUICK)).says


def sandbox_findings() -> list[Finding]:
    return [finding for finding in engine.check(QUICK) if finding.part == "sandbox"]


def test_what_a_driver_could_do_is_tried_and_named(
    db: None, supervisor: supervised.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox.attempts, "__file__", str(supervisor.data / "found.py"))
    found = {"uid": 0, "settings": ["/proc/sys/kernel/core_pattern"], "own": [], "outside": [], "secretive": []}
    rest = dict.fromkeys(("root", "capabilities", "new_privileges", "mount", "user_namespace"), False)
    (supervisor.data / "found.py").write_text(f"import json; print(json.dumps({found | rest}))")
    finding = only(sandbox_findings())
    assert finding.state == State.FAILED
    assert finding.says == (
        "Tried as a driver would: a driver can act as root, write kernel settings of this machine "
        "(/proc/sys/kernel/core_pattern)."
    )
    assert "Run the site as a user other than root" in finding.advice
    monkeypatch.undo()
    repaired = sandbox_findings()[0]
    assert repaired.state != State.FAILED, repaired
    if not sandbox.unavailable_reason(django_settings.DATA_DIR):
        assert "it can't write kernel settings" in repaired.says


def test_a_machine_on_which_no_service_may_run_is_named(
    db: None, supervisor: supervised.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "service_user", lambda _: sandbox.User(12345, 12345))
    monkeypatch.setattr(sandbox, "trial", lambda _: sandbox.Trial(None, "bubblewrap is missing.", {}, "no Python"))
    monkeypatch.setattr(engine, "holes", lambda again: [])
    finding = only(sandbox_findings())
    assert finding.state == State.FAILED
    assert finding.says == "Services never run as root, and can't run as user 12345 either: no Python."
    assert finding.advice.startswith("Install bubblewrap, or run the site as a user other than root")


def test_nothing_is_said_of_the_engine_where_there_is_none(settings: Any) -> None:
    settings.SERVE = {"dashboard"}
    assert list(engine.check(QUICK)) == []


# --- disk, versions, settings -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB with room for 40 files."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=40,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may mount nothing here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_small_disk_and_one_without_inodes_have_failed(small_disk: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = small_disk
    room = only(disk.check(QUICK))
    assert room.state == State.FAILED
    assert str(small_disk) in room.says
    assert "manage.py prune" in room.advice
    for number in range(39):
        (small_disk / str(number)).touch()
    assert "0 more files" in wrong(disk.check(QUICK))[1].says


def test_a_disk_with_little_room_is_a_warning(tmp_path: Path, settings: Any, monkeypatch: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    tmp_path.chmod(0o700)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    monkeypatch.setattr(disk, "LITTLE", free + disk.GB)
    assert only(disk.check(QUICK)).state == State.WARNING


def test_what_others_may_read_is_named_with_the_command_that_closes_it(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    (tmp_path / "secret_key").write_text("x")
    (tmp_path / "secret_key").chmod(0o640)
    tmp_path.chmod(0o755)
    key, folder = [finding for finding in wrong(disk.check(QUICK)) if finding.part == "secrets"]
    assert (key.state, folder.state) == (State.FAILED, State.WARNING)
    assert f"chmod 600 {tmp_path}/secret_key" in key.advice
    assert f"chmod 700 {tmp_path}" in folder.advice


def test_the_folders_that_take_the_room_are_told_largest_first(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = settings.TMP_DIR = settings.RUN_DIR = tmp_path
    for name, count in (("little", 10), ("much", 500)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * count * 1024)
    disk._folders.cache_clear()
    says = next(finding.says for finding in disk.check(QUICK) if finding.part == "data")
    assert says.index("much") < says.index("little")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DEBUG", True, "DEBUG is on"),
        ("SITE_URL", "http://testserver", "unencrypted"),
        ("SITE_URL", "https://models.example", "not in ALLOWED_HOSTS"),
    ],
)
def test_settings_that_are_wrong_for_a_site_are_named(settings: Any, name: str, value: Any, words: str) -> None:
    setattr(settings, name, value)
    settings.ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
    assert words in only(versions.check(QUICK)).says


# --- all of it ----------------------------------------------------------------------------------------------------


def test_a_check_that_fails_or_hangs_is_a_finding_and_holds_up_no_other(monkeypatch: Any, caplog: Any) -> None:
    def broken(asked: Asked) -> Iterator[Finding]:
        yield Finding("broken", State.OK, "So far so good.")
        raise ZeroDivisionError("of something")

    def hanging(asked: Asked) -> Iterator[Finding]:
        yield Finding("hanging", State.OK, "So far so good.")
        time.sleep(2)

    monkeypatch.setattr(run, "CHECKS", {"broken": broken, "hanging": hanging, "versions": versions.check})
    monkeypatch.setattr(run, "QUICK", 0.3)
    started = time.monotonic()
    found = doctor.examine(QUICK)
    assert time.monotonic() - started < 1
    broke, hung = wrong(found)
    assert "ZeroDivisionError: of something" in broke.says
    assert "More did not come" in hung.says
    assert [finding.part for finding in found].count("versions") == 2
    assert "The check of broken failed" in caplog.text


def run_doctor(data: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    command = [sys.executable, "manage.py", "doctor", *words]
    values = {**kept, "DATA_DIR": str(data), "PORT": str(free_port()), **environment}
    return subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, timeout=60)


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


def test_the_table_names_what_failed_and_what_to_do(tmp_path: Path) -> None:
    done = run_doctor(tmp_path / "data")
    assert done.returncode == 1
    assert "✗ database" in done.stdout
    assert "→ Start the site, which makes it: `make up`." in done.stdout
    assert "✓ versions" in done.stdout


def test_a_database_server_and_a_redis_out_of_reach_are_named_without_their_passwords(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    urls = {"DATABASE_URL": f"postgres://me:pg-secret@{nobody}/x", "REDIS_URL": f"redis://:rd-secret@{nobody}/0"}
    done = run_doctor(tmp_path / "data", **urls)
    assert (done.returncode, done.stderr) == (1, "")
    assert "✗ database         It does not answer" in done.stdout
    assert f"✗ Redis            It cannot be reached at {nobody}" in done.stdout
    assert "secret" not in done.stdout.replace("secrets", "").replace("secret key", "").replace("secret_key", "")


@pytest.mark.parametrize("what", ["data folder", "secret key"])
def test_a_data_folder_that_cannot_be_used_is_one_sentence(what: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    if what == "data folder":
        data.write_text("a file where a folder should be")
    else:
        (data / "secret_key").mkdir(parents=True)
    done = run_doctor(data)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
