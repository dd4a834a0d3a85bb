"""The scoring program as a real process: responses, rejected requests, and how it ends."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scoring_program import Program, exchange
from tests.site import wait_until
from tests.support.clock import quiet_seconds

ECHO = """
import json, os, sys, time

def init():
    print("loaded")

def run(body):
    if body == "crash": os._exit(9)
    if body == "raise": raise KeyError("petal")
    if body == "exit": sys.exit(1)
    if body.startswith("sleep"): time.sleep(float(body.split()[1]))
    if body == "nan": return float("nan")
    if body == "object": return object()
    if body == "text": return "plain"
    if body == "pid": return os.getpid()
    if body == "json": return json.dumps({"a": 1})
    if body.startswith("{"): return json.loads(body)
    return {"got": body}
"""
FIELDS = "def init(): pass\ndef run(rows, scale): return {'rows': rows, 'scale': scale}\n"
SCHEMA = {
    "input": {
        "rows": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            "example": [[1.5, 2]],
        },
        "scale": {"type": "integer", "default": 1},
    },
    "output": {"type": "object"},
}


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Return a program shared by the tests that only send valid requests."""
    with Program(tmp_path_factory.mktemp("echo"), ECHO, body_max_bytes=1000, run_timeout=5) as program:
        yield program.wait_until_ready()


def test_run_gets_the_body_as_text_and_its_result_is_returned_as_json(echo: Program) -> None:
    assert echo.score("Grüße".encode()) == (200, {"got": "Grüße"})
    assert echo.score(b"") == (200, {"got": ""})


def test_json_text_is_returned_unchanged_and_other_text_as_a_json_string(echo: Program) -> None:
    assert echo.score(b"json") == (200, {"a": 1})
    assert echo.score(b"text") == (200, "plain")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"raise", "KeyError: 'petal'"),
        (b"exit", "SystemExit: 1"),
    ],
)
def test_an_exception_of_the_driver_is_returned_as_a_message_and_logged_with_its_traceback(
    echo: Program, body: bytes, message: str
) -> None:
    status, answer = echo.score(body)
    assert status == 500
    assert answer["error"]["code"] == "DriverFailed"
    assert answer["error"]["message"].startswith(message)
    assert "Traceback" not in answer["error"]["message"]
    assert "Traceback" in echo.log


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"nan", "the answer is NaN. Replace it"), (b"object", "the answer is of type object. Convert it")],
)
def test_an_answer_that_is_not_json_is_returned_as_a_message_and_logged(
    echo: Program, body: bytes, message: str
) -> None:
    status, answer = echo.score(body)
    assert (status, answer["error"]["code"]) == (500, "DriverFailed")
    assert message in answer["error"]["message"]
    assert answer["error"]["message"] in echo.log


def test_invalid_json_that_the_driver_cannot_parse_is_a_client_error(echo: Program) -> None:
    status, answer = echo.score(b'{"rows": [1,')
    assert status == 400
    assert answer["error"]["code"] == "MalformedInput"
    assert "not JSON" in answer["error"]["message"]


def test_a_body_that_is_not_text_is_rejected(echo: Program) -> None:
    status, answer = echo.score(b"\xff\xff")
    assert (status, answer["error"]["code"]) == (400, "MalformedInput")


def test_a_body_above_the_limit_is_rejected_with_or_without_content_length(echo: Program) -> None:
    assert echo.score(b"x" * 1000)[0] == 200
    assert echo.score(b"x" * 1001)[0] == 413
    chunks = b"200\r\n" + b"x" * 512 + b"\r\n"
    answer = exchange(
        echo.connect(),
        b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunks * 2 + b"0\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_unknown_paths_and_methods_are_rejected_with_the_available_ones(echo: Program) -> None:
    assert echo.request("GET", "/nothing")[0] == 404
    status, answer, response = echo.request("GET", "/score")
    assert (status, response.headers["allow"]) == (405, "POST")
    assert answer["error"]["code"] == "MethodNotAllowed"
    assert echo.request("POST", "/", b"")[0] == 405
    status, answer, response = echo.request("HEAD", "/")
    assert (status, answer, response.headers["content-length"] != "0") == (200, None, True)


def test_compressed_bodies_are_rejected_by_name(echo: Program) -> None:
    assert echo.request("POST", "/score", b"x", content_encoding="gzip")[0] == 415


def test_chunked_and_pipelined_requests_are_answered_in_order_on_one_connection(echo: Program) -> None:
    chunked = b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    slow = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nsleep 0.2"
    many = b"".join(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nn%03d" % n for n in range(50))
    last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = exchange(echo.connect(), chunked + slow + many + last)
    found = [
        answer.index(f'"got": "{text}"'.encode()) for text in ("abcdef", "sleep 0.2", *(f"n{n:03}" for n in range(50)))
    ]
    assert found == sorted(found)
    assert answer.count(b"HTTP/1.1 200 OK") == 53


def test_requests_sent_byte_by_byte_are_read(echo: Program) -> None:
    with echo.connect() as connection:
        for byte in b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi":
            connection.sendall(bytes([byte]))
        assert exchange(connection, b"").endswith(b'{"got": "hi"}')


def test_a_client_that_expects_100_continue_receives_it(echo: Program) -> None:
    with echo.connect() as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert exchange(connection, b"hi").startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", b"400"),
        (
            b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
        ),
        (b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\n", b"400"),
        (b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 40_000, b"431"),
    ],
)
def test_data_that_is_not_http_is_rejected_once_and_the_connection_closed(
    echo: Program, data: bytes, status: bytes
) -> None:
    answer = exchange(echo.connect(), data)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close" in answer


def test_an_invalid_request_after_a_valid_one_is_answered_in_order(echo: Program) -> None:
    good = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nsleep 0.2"
    answer = exchange(echo.connect(), good + b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1 400") == 1


def test_fields_of_the_schema_become_arguments_and_defaults_are_filled_in(tmp_path: Path) -> None:
    with Program(tmp_path, FIELDS, SCHEMA) as program:
        program.wait_until_ready()
        assert program.score({"rows": [[1, 2.5]]}) == (200, {"rows": [[1, 2.5]], "scale": 1})
        for body, place in [
            (b"nothing", "not JSON"),
            ([1], "must be a JSON object"),
            ({"scale": 1}, "rows is missing"),
            ({"rows": []}, "rows must have at least 1 items"),
            ({"rows": [[1, "2"]]}, "rows[0][1] must be number, not string"),
            ({"rows": [[1, 2, 3]]}, "rows[0] must have at most 2 items"),
            ({"rows": [[1, 2]], "scale": 1.5}, "scale must be integer, not number"),
            ({"rows": [[1, 2]], "scale": True}, "scale must be integer, not boolean"),
            ({"rows": [[1, 2]], "more": 1}, "Unknown field more"),
        ]:
            status, answer = program.score(body)
            assert (status, answer["error"]["code"]) == (400, "MalformedInput"), body
            assert place in answer["error"]["message"], answer


def test_the_openapi_document_is_valid_and_its_example_is_accepted(tmp_path: Path) -> None:
    from openapi_spec_validator import OpenAPIV2SpecValidator, validate

    with Program(tmp_path, FIELDS, SCHEMA) as program:
        program.wait_until_ready()
        document = program.request("GET", "/swagger.json", x_forwarded_prefix="/scoring/abc")[1]
        validate(document, cls=OpenAPIV2SpecValidator)
        assert document["basePath"] == "/scoring/abc"
        example = document["definitions"]["ServiceInput"]["example"]
        assert example == {"rows": [[1.5, 2]], "scale": 1}
        assert program.score(example)[0] == 200


def test_while_init_runs_the_status_is_503_starting(tmp_path: Path) -> None:
    source = "import time\ndef init(): time.sleep(1)\ndef run(body): return 1\n"
    with Program(tmp_path, source) as program:
        for method, path in (("GET", "/"), ("POST", "/score")):
            status, answer, response = program.request(method, path, b"")
            assert (status, answer["error"]["code"]) == (503, "Starting")
            assert response.headers["retry-after"] == "1"
        program.wait_until_ready()
        assert program.score(b"") == (200, 1)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "def init(): raise RuntimeError('no weights')\ndef run(body): pass",
            "init() failed: RuntimeError: no weights",
        ),
        ("import missing_thing", "ModuleNotFoundError"),
        ("def run(body): pass", "has no function init()"),
        ("def init(): pass", "has no function run()"),
        ("import time\ndef init(): time.sleep(60)\ndef run(body): pass", "init() did not return within 1 s"),
    ],
)
def test_a_driver_that_cannot_start_ends_the_process_and_logs_the_reason_last(
    tmp_path: Path, source: str, reason: str
) -> None:
    with Program(tmp_path, source, init_timeout=1) as program:
        assert program.process.wait(10) == 3
        assert reason in program.log.strip().splitlines()[-1]


def test_a_slow_run_is_504_and_the_process_recovers_when_it_ends(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO, run_timeout=0.3) as program:
        program.wait_until_ready()
        status, answer = program.score(b"sleep 1.2")
        assert (status, answer["error"]["code"]) == (504, "TimedOut")
        assert program.request("GET", "/")[0] == 503
        assert program.score(b"x")[0] == 503
        program.wait_until_ready()
        assert program.score(b"x") == (200, {"got": "x"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "endless", ["while True: pass", "import re; re.match('(a+)+$', 'a' * 60 + 'b')"], ids=["loop", "holds the lock"]
)
def test_a_run_that_never_ends_ends_the_process(tmp_path: Path, endless: str) -> None:
    source = f"def init(): pass\ndef run(body):\n    {endless}\n"
    with Program(tmp_path, source, run_timeout=0.5) as program:
        program.wait_until_ready()
        with program.connect() as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            assert program.process.wait(15) != 0
        assert "run" in program.log


def test_a_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO, queue_length=2) as program, ThreadPoolExecutor(8) as pool:
        program.wait_until_ready()
        answers = list(pool.map(lambda _: program.request("POST", "/score", b"sleep 0.4"), range(8)))
        statuses = sorted(status for status, *_ in answers)
        assert statuses == [200, 200, 200, 503, 503, 503, 503, 503]
        refused = next(answer for answer in answers if answer[0] == 503)
        assert refused[1]["error"]["code"] == "QueueFull"
        assert refused[2].headers["retry-after"] == "1"


@pytest.mark.serial
def test_calls_run_one_at_a_time_while_health_responds(tmp_path: Path) -> None:
    source = (
        "import time\nbusy = 0\ndef init(): pass\ndef run(body):\n    global busy\n    busy += 1\n"
        "    time.sleep(0.1)\n    found = busy\n    busy -= 1\n    return found\n"
    )
    with Program(tmp_path, source) as program, ThreadPoolExecutor(5) as pool:
        program.wait_until_ready()
        scores = [pool.submit(program.score, b"") for _ in range(5)]
        began = time.monotonic()
        assert program.request("GET", "/")[0] == 200
        assert quiet_seconds(time.monotonic() - began) < 0.2
        assert [score.result() for score in scores] == [(200, 1)] * 5


def test_health_counts_pending_requests(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO) as program, ThreadPoolExecutor(2) as pool:
        program.wait_until_ready()
        assert program.request("GET", "/")[1] == {"status": "healthy", "inFlight": 0}
        scores = [pool.submit(program.score, b"sleep 0.5") for _ in range(2)]
        time.sleep(0.2)
        assert program.request("GET", "/")[1]["inFlight"] == 2
        assert [score.result()[0] for score in scores] == [200, 200]
        assert program.request("GET", "/")[1]["inFlight"] == 0


def test_a_request_of_a_disconnected_client_is_not_started(tmp_path: Path) -> None:
    source = (
        "import time\ncalls = []\ndef init(): pass\ndef run(body):\n    calls.append(body)\n"
        "    time.sleep(0.3)\n    return calls\n"
    )
    with Program(tmp_path, source) as program, ThreadPoolExecutor(1) as pool:
        program.wait_until_ready()
        first = pool.submit(program.score, b"first")
        time.sleep(0.1)
        left = program.connect()
        left.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nleft")
        time.sleep(0.1)
        left.close()
        first.result()
        assert program.score(b"last") == (200, ["first", "last"])


def test_sigterm_finishes_running_requests_rejects_new_ones_and_exits_0(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO) as program, ThreadPoolExecutor(3) as pool:
        program.wait_until_ready()
        idle = program.connect()
        scores = [pool.submit(program.request, "POST", "/score", b"sleep 0.4") for _ in range(3)]
        time.sleep(0.2)
        began = time.monotonic()
        assert program.stop() == 0
        assert quiet_seconds(time.monotonic() - began) < 3
        for score in scores:
            status, _, response = score.result()
            assert (status, response.headers["connection"]) == (200, "close")
        assert idle.recv(10) == b""


def test_sigterm_during_init_ends_the_process_immediately(tmp_path: Path) -> None:
    with Program(tmp_path, "import time\ndef init(): time.sleep(60)\ndef run(body): pass\n") as program:
        program.request("GET", "/")
        assert program.stop() == 0


def test_sigterm_works_although_the_parent_ignored_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        program = Program(tmp_path, ECHO)
    finally:
        signal.signal(signal.SIGTERM, before)
    with program:
        program.wait_until_ready()
        assert program.stop() == 0


def test_an_asset_named_like_a_module_of_the_program_does_not_replace_it(tmp_path: Path) -> None:
    with Program(tmp_path, "import helper\ndef init(): pass\ndef run(body): return helper.WORD\n") as program:
        for name in ("json", "asyncio", "scoring", "http"):
            (tmp_path / "app" / f"{name}.py").write_text("raise RuntimeError('shadowed')")
        (tmp_path / "app" / "helper.py").write_text("WORD = 'mine'")
        program.wait_until_ready()
        assert program.score(b"") == (200, "mine")


def processes(program: Program) -> set[int]:
    """Return the ids of the processes that answer. One that is starting responds with an error."""
    answers = [program.score(b"pid") for _ in range(40)]
    return {pid for status, pid in answers if status == 200}


def test_several_processes_share_the_socket_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO, processes=2) as program:
        program.wait_until_ready()
        found = wait_until(lambda: len(pids := processes(program)) == 2 and pids, 15, "two processes")
        assert program.process.pid not in found
        with pytest.raises((ConnectionError, OSError)):
            program.score(b"crash")
        assert program.score(b"x")[0] == 200  # the other process continues
        wait_until(lambda: len(processes(program) - found) == 1, 15, "another process")
        assert program.stop() == 0


def test_several_processes_end_together_when_init_fails(tmp_path: Path) -> None:
    with Program(tmp_path, "def init(): raise ValueError('no')\ndef run(body): pass\n", processes=2) as program:
        assert program.process.wait(10) == 3


def test_a_socket_left_behind_is_replaced_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "s.sock").touch()
    with Program(tmp_path, ECHO) as program:
        for _ in range(200):
            if (tmp_path / "s.sock").is_socket():
                break
            time.sleep(0.02)
        program.wait_until_ready()
        assert Path(program.address).stat().st_mode & 0o777 == 0o600


def test_hundreds_of_concurrent_clients_all_get_a_response(tmp_path: Path) -> None:
    with Program(tmp_path, ECHO, queue_length=1000) as program:
        program.wait_until_ready()
        before = threading.active_count()  # earlier tests have left thread pools
        connections = [program.connect() for _ in range(300)]
        for number, connection in enumerate(connections):
            body = b"%d" % number
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        for number, connection in enumerate(connections):
            assert json.loads(connection.recv(4096).split(b"\r\n\r\n")[1]) == {"got": str(number)}
            connection.close()
        assert threading.active_count() < before + 30
