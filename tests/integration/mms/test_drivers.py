"""Unusual drivers in the real scoring program: each works or is rejected with a reason. None stops the service."""

import os
import signal
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.scoring_program import Program, exchange
from tests.site import wait_until

ODD = """
import asyncio, contextvars, ctypes, decimal, json, multiprocessing, os, signal, subprocess, sys, threading, time
from concurrent.futures import ProcessPoolExecutor

last = contextvars.ContextVar("last", default="nothing")
loops = []

class Mute(Exception):
    def __str__(self): raise ValueError("no words")

class Last(BaseException):
    def __str__(self): sys.exit(5)

class Sub(str): pass

class Long(Exception):
    def __str__(self): return Sub("x" * 5_000_000)

def init(): pass

def forever(n):
    time.sleep(n)

def fork(then):
    child = os.fork()
    if not child:
        return then()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def pool():
    with multiprocessing.get_context("fork").Pool(2) as found:
        return found.map(abs, [-1, -2])

def terminated():
    child = multiprocessing.get_context("fork").Process(target=forever, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode

def wait_for_signal(ready):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    ready.send(True)
    time.sleep(60)

def handled():
    "Terminate a child that has its own signal handler."
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=wait_for_signal, args=(there,))
    child.start()
    here.recv()
    child.terminate()
    child.join()
    return child.exitcode

def square(n): return n * n

def spawned(method):
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as found:
        return list(found.map(square, [-3]))

def hold():
    "Leave a forked child that runs for a minute and return its process ID."
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return child

def interrupt():
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(KeyError))
    return "interrupted"

def recurse(): return recurse()

def remember():
    found = last.get()
    last.set("seen")
    return found

async def stored():
    loops.append(asyncio.get_running_loop())
    await asyncio.sleep(0)
    return {"same loop": loops[0] is loops[-1], "last": remember()}

async def leave(): sys.exit(7)

class Later:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return {"later": True}

def run(body):
    return eval(body)
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Return a program whose driver evaluates the body. It must survive all tests with the same process."""
    with Program(tmp_path_factory.mktemp("odd"), ODD, run_timeout=60, answer_max_bytes=10_000) as program:
        program.wait_until_ready()
        yield program
        assert program.score(b"os.getpid()") == (200, program.process.pid)


def message(program: Program, body: bytes, status: int = 500, code: str = "DriverFailed") -> str:
    """Return the message of the expected error, after a check that the next request is answered."""
    found, answer = program.score(body)
    assert (found, answer["error"]["code"]) == (status, code), answer
    assert program.score(b"1 + 1") == (200, 2)
    return str(answer["error"]["message"])


def refusal(tmp_path: Path, source: str, schema: Any = None) -> str:
    """Return the last line of the log of a driver that is refused."""
    with Program(tmp_path, textwrap.dedent(source), schema) as program:
        assert program.process.wait(30) == 3
        return program.log.strip().splitlines()[-1]


# --- exceptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"(_ for _ in ()).throw(Mute())", "Mute (its message is unavailable: __str__ raised ValueError)"),
        (b"(_ for _ in ()).throw(Last())", "Last (its message is unavailable: __str__ raised SystemExit)"),
        (b"sys.exit(3)", "SystemExit: 3"),
        (b"(_ for _ in ()).throw(KeyboardInterrupt())", "KeyboardInterrupt"),
        (b"(_ for _ in ()).throw(GeneratorExit())", "GeneratorExit"),
        (b"(_ for _ in ()).throw(asyncio.CancelledError())", "CancelledError"),
        (b"(_ for _ in ()).throw(MemoryError())", "MemoryError"),
        (b"recurse()", "RecursionError: maximum recursion depth exceeded"),
        (b"leave()", "SystemExit: 7"),
        (b"[map(lambda x: 1 / 0, [1])]", "ZeroDivisionError: division by zero"),
        (b"input()", "EOFError: EOF when reading a line"),
    ],
    ids=str,
)
def test_every_exception_of_run_is_answered_immediately(odd: Program, body: bytes, expected: str) -> None:
    assert message(odd, body).startswith(expected)


def test_a_huge_message_is_shortened_in_the_answer_and_in_the_log(odd: Program) -> None:
    assert len(message(odd, b"(_ for _ in ()).throw(Long())")) < 3000
    assert "characters omitted" in odd.log
    assert len(odd.log) < 500_000


def test_an_exception_raised_in_the_drivers_thread_by_another_does_not_end_it(odd: Program) -> None:
    assert odd.score(b"interrupt()")[0] in (200, 500)
    assert odd.score(b"1") == (200, 1)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def init(): raise SystemExit(0)\ndef run(x): pass", "init() failed: SystemExit: 0"),
        ("import sys\nsys.exit('bye')", "init() failed: SystemExit: bye"),
        ("def init(): raise KeyboardInterrupt\ndef run(x): pass", "init() failed: KeyboardInterrupt"),
        ("def init(): raise ValueError('two\\nlines')\ndef run(x): pass", "init() failed: ValueError: two lines"),
        ("def init(): input()\ndef run(x): pass", "init() failed: EOFError"),
        ("async def init(): raise ValueError('no')\ndef run(x): pass", "init() failed: ValueError: no"),
        (
            "class Mute(Exception):\n    def __str__(self): return None\ndef init(): raise Mute\ndef run(x): pass",
            "init() failed: Mute (its message is unavailable: __str__ raised TypeError)",
        ),
    ],
)
def test_every_exception_of_init_ends_the_start_with_the_reason(tmp_path: Path, source: str, reason: str) -> None:
    assert refusal(tmp_path, source).startswith(reason)


# --- signatures, coroutines and generators ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "schema", "reason"),
    [
        ("def run(): pass", None, "run() is called with one argument, the request's body, but run() doesn't accept"),
        ("def run(a, b): pass", None, "but run(a, b) doesn't accept that: missing a required argument: 'b'. Change it"),
        ("def run(*, body): pass", None, "too many positional arguments"),
        ("async def run(): pass", None, "too many positional arguments"),
        ("def run(a): pass", {"input": {"b": {}}}, "fields of the schema, b, but run(a) doesn't accept that"),
        ("def run(a): pass", {"input": {"a": {}, "b": {}}}, "got an unexpected keyword argument 'b'"),
        ("def run(a, /): pass", {"input": {"a": {}}}, "doesn't accept that"),
        ("def run(x): yield x", None, "run() is a generator function. Answers can't be streamed. Return a list."),
        ("async def run(x): yield x", None, "run() is a generator function"),
        ("run = 5", None, "has no function run()"),
        ("def run(x): pass\ndef init(): yield 1", None, "init() is a generator function. Its code would never run."),
        ("def run(x): pass\ndef init(model): pass", None, "init() is called without arguments, but init(model)"),
        ("def run(x): pass", {"input": {"x": {"minimum": "0"}}}, 'input.x.minimum must be a number, not "0".'),
    ],
)
def test_a_driver_that_no_request_could_call_is_refused_at_the_start(
    tmp_path: Path, source: str, schema: Any, reason: str
) -> None:
    assert reason in refusal(tmp_path, f"def init(): pass\n{source}\n", schema)


@pytest.mark.parametrize(
    ("source", "schema", "body"),
    [
        ("async def run(body): return [body]", None, b"a"),
        ("def run(body, scale=1, *more, **others): return [body]", None, b"a"),
        ("def run(*bodies): return bodies", None, b"a"),
        ("def run(**fields): return [fields['x']]", {"input": {"x": {}}}, b'{"x": "a"}'),
        ("def run(x, y=2): return [x]", {"input": {"x": {}}}, b'{"x": "a"}'),
        ("class Run:\n    async def __call__(self, body): return [body]\nrun = Run()", None, b"a"),
        ("import functools\nrun = functools.partial(lambda model, body: [body], 'model')", None, b"a"),
        (
            "import functools\ndef inner(a, b): return [a]\n@functools.wraps(inner)\ndef run(x): return inner(x, 2)",
            None,
            b"a",
        ),
        ("run = list", None, b"a"),
    ],
)
def test_every_driver_that_can_be_called_works(tmp_path: Path, source: str, schema: Any, body: bytes) -> None:
    with Program(tmp_path, f"async def init(): pass\n{source}\n", schema) as program:
        assert program.wait_until_ready().score(body) == (200, ["a"])


def test_coroutines_run_in_one_loop_and_share_no_context(odd: Program) -> None:
    for _ in range(2):
        assert odd.score(b"stored()") == (200, {"same loop": True, "last": "nothing"})
        assert odd.score(b"remember()") == (200, "nothing")
        assert odd.score(b"Later()") == (200, {"later": True})
    assert odd.score(b"asyncio.get_event_loop().run_until_complete(stored())")[0] == 200


# --- children ---------------------------------------------------------------------------------------------------------


def test_children_of_the_driver_leave_the_service_alone(odd: Program) -> None:
    for _ in range(3):
        assert odd.score(b"pool()") == (200, [1, 2])
        assert odd.score(b"terminated()") == (200, -signal.SIGTERM)
        assert odd.score(b"handled()") == (200, 7)
    assert odd.score(b"subprocess.run(['sleep', '0']).returncode") == (200, 0)
    assert odd.score(b"os.system('exit 0')") == (200, 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_run_functions_of_the_driver(odd: Program, method: str) -> None:
    assert odd.score(f"spawned({method!r})".encode()) == (200, [9])


@pytest.mark.parametrize(
    ("then", "status"),
    [(b"lambda: None", 0), (b"lambda: sys.exit(4)", 1), (b"lambda: os._exit(9)", 9), (b"lambda: 1 / 0", 1)],
)
def test_a_forked_child_never_becomes_a_second_server(odd: Program, then: bytes, status: int) -> None:
    assert odd.score(b"fork(" + then + b")") == (200, status)


def test_a_child_does_not_hold_connections_or_the_socket_open(tmp_path: Path) -> None:
    with Program(tmp_path, ODD) as program:
        program.wait_until_ready()
        request = b"POST /score HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 6\r\n\r\nhold()"
        child = int(exchange(program.connect(), request).split(b"\r\n\r\n")[1])  # returns when the server closes
        try:
            sockets = [str(file.readlink()) for file in Path(f"/proc/{child}/fd").iterdir()]
            served = Path("/proc/net/unix").read_text().splitlines()
            inodes = {line.split()[6] for line in served if line.endswith(str(program.address))}
            assert inodes
            assert not [name for name in sockets if name.removeprefix("socket:[").rstrip("]") in inodes]
            assert program.stop() == 0
        finally:
            os.kill(child, signal.SIGKILL)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_nothing_of_one_request_reaches_another(tmp_path: Path) -> None:
    schema = {"input": {"q": {"type": "string"}, "history": {"type": "array", "default": []}}}
    source = "def init(): pass\ndef run(q, history):\n    history.append(q)\n    return history\n"
    with Program(tmp_path, source, schema) as program:
        program.wait_until_ready()
        for text in ("first", "second"):
            assert program.score({"q": text}) == (200, [text])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"\xef\xbb\xbf['\xc3\xa9']"),
        ("application/json; charset=utf-8", b"['\xc3\xa9']"),
        ("application/json", "\ufeff['é']".encode("utf-16-le")),
        ("text/plain", "['é']".encode("utf-16-be")),
        ("text/plain", "\ufeff['é']".encode("utf-32")),
        ('text/plain; Charset="ISO-8859-1"', b"['\xe9']"),
        ("application/json;charset=utf-16", "['é']".encode("utf-16")),
        ("application/json; charset=utf-16-le", "\ufeff['é']".encode("utf-16-le")),
        ("text/plain; charset=windows-1252", b"['\xe9']"),
    ],
)
def test_a_body_is_decoded_as_its_content_type_says(odd: Program, content_type: str, body: bytes) -> None:
    assert odd.request("POST", "/score", body, content_type=content_type)[:2] == (200, ["é"])


@pytest.mark.parametrize(
    ("content_type", "status", "reason"),
    [
        ("text/plain; charset=klingon", 415, "The character set 'klingon' in Content-Type isn't supported."),
        ("text/plain; charset=hex", 415, "The character set 'hex'"),
        ("text/plain; charset=idna", 415, "The character set 'idna'"),
        ("text/plain", 400, "The body is not UTF-8 text"),
        ("text/plain; charset=ascii", 400, "The body is not ASCII text"),
    ],
)
def test_a_body_in_another_encoding_is_refused_with_what_to_do(
    odd: Program, content_type: str, status: int, reason: str
) -> None:
    found, answer, _ = odd.request("POST", "/score", b"\xe9", content_type=content_type)
    assert found == status
    assert answer["error"]["message"].startswith(reason)
    assert "UTF-8" in answer["error"]["message"]


def test_an_answer_above_the_limit_is_refused_by_the_limit(odd: Program) -> None:
    assert odd.score(b"'x' * 9000")[0] == 200
    reason = message(odd, b"'x' * 10000", code="AnswerTooLarge")
    assert reason == "The response is larger than 10000 bytes, the limit for services. Return less per request."


def test_a_request_behind_a_stuck_one_is_503_with_retry_after(tmp_path: Path) -> None:
    with Program(tmp_path, ODD, run_timeout=1) as program, ThreadPoolExecutor(3) as pool:
        program.wait_until_ready()
        stuck = pool.submit(program.request, "POST", "/score", b"forever(60)")
        wait_until(lambda: program.request("GET", "/")[1].get("inFlight") == 1, 30, "the first request")
        waiting = [pool.submit(program.request, "POST", "/score", b"1") for _ in range(2)]
        assert stuck.result()[0] == 504
        for request in waiting:
            status, answer, response = request.result()
            assert (status, answer["error"]["code"]) in [(503, "Busy"), (503, "Stuck")]  # stuck if this took over 1 s
            assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("replace", ["io.StringIO()", "None", "open(os.devnull, 'w')"])
def test_a_driver_may_replace_or_close_the_standard_streams(tmp_path: Path, replace: str) -> None:
    source = f"""
import io, os, sys, time
def init():
    sys.stdout.close()
    sys.stderr = {replace}
def run(body):
    if body: raise ValueError("said")
    time.sleep(60)
"""
    with Program(tmp_path, source, run_timeout=1) as program:
        program.wait_until_ready()
        assert program.score(b"1")[1]["error"]["message"] == "ValueError: said"
        assert program.score(b"")[0] == 504
        assert "ValueError: said" in program.log
        assert "run() did not return within 1 s." in program.log


# --- environment and processes ----------------------------------------------------------------------------------------


def test_several_processes_are_healthy_only_once_all_are_ready(tmp_path: Path) -> None:
    source = f"""
import os, time
from pathlib import Path
def init():
    Path({str(tmp_path)!r}, f"begun-{{os.getpid()}}").touch()
    if os.environ["MMS_LATE"] == "1":
        while not Path({str(tmp_path)!r}, "go").exists(): time.sleep(0.02)
def run(body): return os.getpid()
"""
    with Program(tmp_path, source, processes=3) as program:
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 3, 30, "three processes")
        wait_until(lambda: program.score(b"")[0] == 200, 30, "the first process")
        status, answer, _ = program.request("GET", "/")
        assert (status, answer["error"]["code"]) == (503, "Starting")
        (tmp_path / "go").touch()
        program.wait_until_ready()
        assert {program.request("GET", "/")[0] for _ in range(30)} == {200}
        os.kill(program.score(b"")[1], signal.SIGKILL)
        assert {program.request("GET", "/")[0] for _ in range(30)} == {200}  # the others continue
        assert program.stop() == 0
