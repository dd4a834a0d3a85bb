"""The smaller parts of the engines: logs, probe, kubeconfig, the launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mms.engines import kubeconfig
from mms.engines.base import EngineRefusedError
from mms.engines.probe import probe
from mms.engines.process import launch
from mms.engines.process.logs import MAX_DELETED_SERVICES, MAX_REVISIONS, Logs
from mms.system.locks import locked

CLUSTERS = [
    {"name": "here", "cluster": {"server": "process://local"}},
    {"name": "there", "cluster": {"server": "https://10.0.0.1"}},
]
CONTEXTS = [{"name": "one", "context": {"cluster": "there"}}, {"name": "two", "context": {"cluster": "here"}}]


def test_the_server_of_the_current_context_is_used() -> None:
    config = {"clusters": CLUSTERS, "contexts": CONTEXTS, "current-context": "one"}
    assert kubeconfig.find_server(json.dumps(config)) == "https://10.0.0.1"
    assert kubeconfig.find_server(json.dumps({**config, "current-context": "two"})) == "process://local"


def test_without_a_current_context_the_only_cluster_is_used() -> None:
    assert kubeconfig.find_server("clusters:\n- name: x\n  cluster: {server: 'process://local'}\n") == "process://local"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "[1, 2]",
        "{unclosed: [",
        "a: !!python/object/apply:os.system ['true']",
        json.dumps({"clusters": CLUSTERS}),
        json.dumps({"clusters": CLUSTERS, "contexts": CONTEXTS, "current-context": "three"}),
        json.dumps({"clusters": "none", "contexts": [3], "current-context": "one"}),
        json.dumps({"clusters": [{"name": "x", "cluster": {"server": 3}}]}),
        "[" * 5000,
    ],
)
def test_a_kubeconfig_without_a_server_is_rejected_with_a_message(text: str) -> None:
    with pytest.raises(EngineRefusedError, match=r"^The kubeConfig .*\.$"):
        kubeconfig.find_server(text)


def write_log(logs: Logs, text: bytes, service: str = "s", number: int = 1) -> Path:
    path = logs.prepare(service, number)
    path.write_bytes(text)
    return path


def test_a_log_is_read_from_the_end_of_the_last_response(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    path = write_log(logs, b"one\n")
    assert logs.read("s", 1, 0, 100) == ("one\n", 4)
    with path.open("ab") as file:
        file.write(b"two\n")
    assert logs.read("s", 1, 4, 100) == ("two\n", 8)
    assert logs.read("s", 1, 8, 100) == ("", 8)


def test_a_character_split_between_reads_is_not_lost(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    write_log(logs, "aaa€uro".encode())
    text, position = logs.read("s", 1, 0, 5)
    assert (text, position) == ("aaa", 3)
    assert logs.read("s", 1, position, 100) == ("€uro", 9)


def test_bytes_that_are_not_text_do_not_stop_reading(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    write_log(logs, b"\xff\xfe\x00ok\n")
    text, position = logs.read("s", 1, 0, 100)
    assert text.endswith("ok\n")
    assert position == 6


def test_after_a_rotation_the_rest_of_the_old_file_comes_first(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    path = write_log(logs, b"first\nsecond\n")
    path.rename(path.with_name("1.log.1"))
    write_log(logs, b"new\n")
    text, position = logs.read("s", 1, 6, 100)
    assert text == "second\n"
    assert logs.read("s", 1, position, 100) == ("new\n", 4)


def test_a_negative_position_counts_from_the_end(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    write_log(logs, b"one\ntwo\nthree\n")
    assert logs.read("s", 1, -6, 100) == ("three\n", 14)
    assert logs.read("s", 1, -1000, 100)[0] == "one\ntwo\nthree\n"
    assert logs.last_lines("s", 1, 2) == ["two", "three"]


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert Logs(tmp_path).read("s", 1, 0, 100) == ("", 0)


def test_old_logs_are_deleted_and_those_of_running_services_kept(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    for age in range(MAX_DELETED_SERVICES + 5):
        os.utime(write_log(logs, b"x", f"gone-{age}").parent, (age, age))
    os.utime(write_log(logs, b"x", "runs").parent, (0, 0))
    for number in range(1, MAX_REVISIONS + 4):
        os.utime(write_log(logs, b"x", "runs", number), (number, number))
    write_log(logs, b"x", "runs", 1).rename(tmp_path / "runs" / "1.log.1")
    logs.trim({"runs"})
    left = {folder.name for folder in tmp_path.iterdir()}
    assert len(left) == MAX_DELETED_SERVICES + 1
    assert "gone-4" not in left
    assert {path.stem for path in (tmp_path / "runs").glob("*.log")} == {str(n) for n in range(4, MAX_REVISIONS + 4)}


def test_a_probe_without_a_listener_is_not_an_error(tmp_path: Path) -> None:
    assert probe(f"unix:{tmp_path}/none").status == 0
    assert probe("http://127.0.0.1:1").reason == "it doesn't respond"


def test_a_lock_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    with locked(tmp_path / "folder" / "lock") as first:
        assert first
        with locked(tmp_path / "folder" / "lock", wait=False) as second:
            assert not second
    with locked(tmp_path / "folder" / "lock", wait=False) as again:
        assert again


def launched(tmp_path: Path, program: str, **changes: object) -> str:
    """Launch `program` as supervisord does. Return its output."""
    (tmp_path / "s").write_text("the socket of the last run")
    plan = {
        "argv": [sys.executable, "-c", program],
        "environment": {"ONLY": "this"},
        "directory": str(tmp_path),
        "socket": str(tmp_path / "s"),
        "starts": str(tmp_path / "starts"),
        "limits": {"CORE": 0, "NOFILE": 64},
        "wrapped": False,
        **changes,
    }
    (tmp_path / "plan").write_text(json.dumps(plan))
    command = [sys.executable, "-I", "-S", launch.__file__, str(tmp_path / "plan")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_launcher_sets_limits_folder_and_environment(tmp_path: Path) -> None:
    program = "import os, resource as r; print(os.environ.get('HOME'), os.getcwd(), r.getrlimit(r.RLIMIT_NOFILE))"
    assert launched(tmp_path, program) == f"None {tmp_path} (64, 64)"
    assert not (tmp_path / "s").exists()


def test_the_launcher_counts_the_starts_under_one_supervisor(tmp_path: Path) -> None:
    launched(tmp_path, "")
    launched(tmp_path, "")
    assert (tmp_path / "starts").read_text().split()[:2] == [str(os.getpid()), "2"]
    (tmp_path / "starts").write_text("1 17")
    launched(tmp_path, "")
    assert (tmp_path / "starts").read_text().split()[:2] == [str(os.getpid()), "1"]


def test_a_sandbox_around_the_program_outlives_the_stop_signal(tmp_path: Path) -> None:
    program = "import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)"
    assert launched(tmp_path, program, wrapped=True) == "True"
    assert launched(tmp_path, program, wrapped=False) == "False"
