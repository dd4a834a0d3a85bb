"""The benchmark: its groups, its load generator, and the page made from a run."""

import json
import re
import socket
import threading
from pathlib import Path

import pytest
from django.conf import settings

from tests.bench import load, table
from tests.bench.groups import GROUPS, selected
from tests.bench.run import compared
from tests.bench.table import Row
from tests.support import loops

PAGE = Path(settings.BASE_DIR, "docs", "reference", "performance.md")
ABOUT = {
    "at": "2026-11-27 08:00 UTC",
    "cores": "2",
    "processor": "AMD EPYC",
    "memory": "24 GiB",
    "kernel": "Linux 6.18",
    "python": "3.11.7",
    "load": "0.1",
}


def test_groups_are_selected_by_words() -> None:
    assert selected([]) == list(GROUPS)
    assert selected(["streams", "memory"]) == ["memory-idle", "streams", "memory-after-load"]
    with pytest.raises(ValueError, match="No group is called 'speed'"):
        selected(["streams", "speed"])


def test_the_page_names_every_group() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.M) == list(GROUPS)


def keep(folder: Path, *, commit: str, is_complete: bool = True) -> tuple[Path, Path]:
    """Return a file with figures and a copy of the page."""
    (page := folder / "page.md").write_text(PAGE.read_text())
    rows = [Row("a", "1 s", "≤ 2 s", True), Row("b", "3 s", "≤ 2 s", False)]
    table.keep(folder / "run.json", ABOUT | {"commit": commit}, rows, is_complete=is_complete)
    return folder / "run.json", page


def test_the_page_gets_the_figures_of_a_run_with_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_git", lambda *_: "")
    run, page = keep(tmp_path, commit="0123456789ab")
    for _ in range(2):
        table.write_page(run, page)
    text = page.read_text()
    assert "commit 0123456789ab" in text.replace("\n", " ")
    assert text.count("| a | 1 s | ≤ 2 s | reached |\n| b | 3 s | ≤ 2 s | **missed** |") == 1
    assert text.endswith(PAGE.read_text().split(table.END)[1])


@pytest.mark.parametrize(
    ("commit", "is_complete", "changed", "reason"),
    [
        ("0123456789ab", False, "", "only some groups"),
        ("0123456789ab", True, "dashboard/live.py", "isn't the measured one"),
        ("0123456789ab + changes", True, "", "isn't the measured one"),
    ],
)
def test_the_page_refuses_figures_of_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str, is_complete: bool, changed: str, reason: str
) -> None:
    monkeypatch.setattr(table, "_git", lambda *_: changed)
    run, page = keep(tmp_path, commit=commit, is_complete=is_complete)
    with pytest.raises(ValueError, match=reason):
        table.write_page(run, page)
    assert page.read_text() == PAGE.read_text()
    assert not json.loads(run.read_text())["complete"] or is_complete


def test_a_lost_connection_is_a_failed_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        message = load.encode("GET", url)
        seen = loops.in_thread(
            lambda: load.run(url, lambda number: message if number < 9 else None, clients=1, seconds=30)
        )
        thread.join()
    assert (seen.requests, seen.failed) == (1, 1)


def result(requests: int, p99: float = 1, failed: int = 0) -> load.Result:
    return load.Result(requests, failed, seconds=1, median=p99, p95=p99, p99=p99, longest=p99)


@pytest.mark.parametrize(
    ("beside", "reached"),
    [
        (result(50, 3), True),
        (result(40, 3), False),  # too few
        (result(50, 4), False),  # too slow
        (result(50, 3, failed=1), False),
    ],
)
def test_a_comparison_is_reached_only_if_nothing_is_missed(beside: load.Result, reached: bool) -> None:
    row = compared("scoring", [(result(100), beside)], "alone", 0.45, most_p99=3)
    assert row.reached is reached
    assert ("failed" in row.seen) is bool(beside.failed)
