"""Malicious URLs and servers: rejected in time, without leftovers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mms.images.sources.fetch import FetchError, Policy, fetch
from mms.operations import builds
from netguard.addresses import is_allowed, is_public
from tests.doubles.files import Files, running_files
from tests.support.clock import quiet_seconds
from tests.support.mms_rows import image_operation

SECONDS = 3.0

# PORT is the port of a server on loopback that must never be contacted.
LOOPBACK = [
    "http://127.0.0.1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://0x7f000001:PORT/",
    "http://0X7F.0.0.1:PORT/",
    "http://0x7f.1:PORT/",
    "http://2130706433:PORT/",
    "http://017700000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://00000000000:PORT/",
    "http://127.255.255.254:PORT/",
    "HTTP://LOCALHOST:PORT/",
    "hTTp://LocalHost:PORT/",
    "http://localhost.:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::ffff:0:127.0.0.1]:PORT/",
    "http://[::FFFF:127.0.0.1%25lo]:PORT/",
    "http://[::1%25lo]:PORT/",
    "http://[fe80::1%25lo]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b:1::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:0:0:0:0:80ff:fffe]:PORT/",
    "http://[fec0::1]:PORT/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:PORT/",
    "http://127\u30020\u30020\u30021:PORT/",
    "http://\uff11\uff12\uff17.0.0.1:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://localhost%00.example:PORT/",
    "http://localhost#@example.org:PORT/",
    "http://localhost:PORT\\@example.org/",
    "http://example.org@127.0.0.1:PORT/",
    "http://example.org:80@127.0.0.1:PORT/",
    "http://:@127.0.0.1:PORT/",
    "http://example.org\\@127.0.0.1:PORT/",
    "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/",
    "//127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    " http://127.0.0.1:PORT/",
    "ht\ntp://127.0.0.1:PORT/",
    "http://127.0.0.1\t:PORT/",
    "http://127.0.0.1:PORT/\r\nHost: x",
    "https://127.0.0.1:PORT/",
    "file://127.0.0.1:PORT/etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "dict://127.0.0.1:PORT/x",
    "jar:http://127.0.0.1:PORT/!/x",
    "url:http://127.0.0.1:PORT/",
]
NO_HOST = [
    "http://" + "a" * 64 + ".example/",
    "http://" + "a." * 200 + "example/",
    "http://a..b/",
    "http://.../",
    "http://.example/",
    "http://-/",
    "http://xn--/",
    "http://[v1.a]/",
    "http://[]/",
    "http://[::1/",
    "http://]/",
    "http://a:b/",
    "http://a:-1/",
    "http://a:65536/",
    "http://a:\u0661/",
    "http://a\u202eb/",
    "http://\ud800/",
    "http://a/\ud800",
    "http://a:80:80/",
]
ADDRESSES = ["100.100.100.200", "fd00:ec2::254", "3fff::1", "5f00::1", "::ffff:0:10.0.0.1", "::ffff:100.100.100.200"]

# Paths that only seem to be below /files/, which is exempt from the address check.
BESIDE_UPLOADS = [
    "/healthz",
    "/scoring/metrics",
    "/api/openapi.json",
    "/",
    "/files",
    "/filesystem/x",
    "/FILES/x",
    "/%66iles/x",
    "//files/x",
    "/./files/x",
    "/x/../files/x",
    "/files/../scoring/metrics",
    "/files/./../healthz",
    "/files/..",
    "/files/%2e%2e/healthz",
    "/files/.%2E/healthz",
    "/files/..%2fhealthz",
    "/files/..%5chealthz",
    "/files/..\\healthz",
    "/files/%252e%252e/healthz",
    "/files/x/..%252f..%252fhealthz",
    "/files/..;/healthz",
    "/files/..;x=y/healthz",
    "/files//healthz",
    "/files/%2fhealthz",
    "/files\\..\\healthz",
    "?/files/x",
    "#/files/x",
]


@pytest.fixture
def files() -> Iterator[Files]:
    with running_files() as server:
        yield server


def attempt(url: str, target: Path, policy: Policy) -> str:
    """Return what is wrong with how `url` was rejected; "" if nothing is."""
    began = time.monotonic()
    try:
        fetch(url, target, policy)
    except FetchError as reason:
        if not str(reason).isprintable():
            return f"{url!r}: the reason holds {str(reason)!r}"
    except BaseException as error:
        return f"{url!r}: {type(error).__name__}: {error}"
    else:
        return f"{url!r} was fetched"
    if list(target.parent.iterdir()):
        return f"{url!r} left a file behind"
    return f"{url!r} took {took:.1f} s" if (took := time.monotonic() - began) > policy.seconds + 2 else ""


def test_no_spelling_of_an_address_reaches_this_machine(
    files: Files, tmp_path: Path, record: dict[str, object]
) -> None:
    port = files.url.rpartition(":")[2]
    policy = Policy(1000, seconds=SECONDS)
    urls = [url.replace("PORT", port) for url in LOOPBACK] + NO_HOST
    found = [problem for url in urls if (problem := attempt(url, tmp_path / "it", policy))]
    redirected = [url for url in urls if url.isascii() and url.isprintable()]
    for number, url in enumerate(redirected):  # after a redirect from an allowed address
        allowed = Policy(1000, seconds=SECONDS, allow_below=(f"{files.url}/from/",))
        found += filter(None, [attempt(files.redirect(f"/from/{number}", url), tmp_path / "it", allowed)])
    found += [f"{address} counts as public" for address in ADDRESSES if is_public(address)]
    found += [address for address in ("100.100.100.200", "fd00:ec2::254") if is_allowed(address)]
    record |= {"hostile URLs": len(urls) + len(redirected) + len(ADDRESSES), "findings": len(found)}
    assert not found, "\n".join(found)
    assert all(path.startswith("/from/") for path in files.asked)


@pytest.mark.django_db
def test_only_the_uploads_of_a_local_site_can_be_downloaded(
    files: Files, tmp_path: Path, settings: object, record: dict[str, object]
) -> None:
    settings.FILES_URL = files.url  # type: ignore[attr-defined]
    operation = image_operation(files.url)
    assert operation.image
    told = builds.specification(operation.image, tmp_path)["fetch"]
    policy = Policy(told["max_bytes"], told["allow_private"], tuple(told["allow_below"]), SECONDS)
    upload = files.put(f"/files/{'a' * 64}/model%20v1..2.pkl", b"the model")
    fetch(f"{upload}?key=abc", tmp_path / "it", policy)
    (tmp_path / "it").unlink()
    before = files.connections
    found = [problem for path in BESIDE_UPLOADS if (problem := attempt(files.url + path, tmp_path / "it", policy))]
    assert files.connections == before
    hops = [path for path in BESIDE_UPLOADS if path.startswith("/") and "\\" not in path]
    for number, path in enumerate(hops):
        found += filter(None, [attempt(files.redirect(f"/files/hop{number}", path), tmp_path / "it", policy)])
    record |= {"addresses beside the uploads": len(BESIDE_UPLOADS) + len(hops), "findings": len(found)}
    assert not found, "\n".join(found)
    assert all(path.startswith("/files/") for path in files.asked)


def continues(request: BaseHTTPRequestHandler) -> None:
    while True:
        request.wfile.write(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100)


def headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"X: " + b"y" * 60_000 + b"\r\n")


def one_header(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        request.wfile.write(b"y" * 60_000)


def trailers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    while True:
        request.wfile.write(b"X: y\r\n" * 1000)


def chunk_extensions(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    while True:
        request.wfile.write(b"x" * 60_000)


def negative_chunks(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx")


def negative_length(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + bytes(2000))


def immense_length(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + bytes(2000))


def steering_reason(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 500 \x1b[2J<b>\r\nContent-Length: 0\r\n\r\n")


def to_credentials(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: http://user:word@example.org/\r\n\r\n")


def endless_redirect(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /files/endless_redirect\r\n\r\n" + bytes(100_000))


SERVERS: list[Callable[[BaseHTTPRequestHandler], None]] = [
    continues,
    headers,
    one_header,
    trailers,
    chunk_extensions,
    negative_chunks,
    negative_length,
    immense_length,
    steering_reason,
    to_credentials,
    endless_redirect,
]


@pytest.mark.slow
def test_no_server_stalls_a_download_or_exhausts_memory(
    files: Files, tmp_path: Path, record: dict[str, object]
) -> None:
    policy = Policy(1000, seconds=1.0, allow_below=(f"{files.url}/files/",))
    urls = [files.serve(f"/files/{page.__name__}", page) for page in SERVERS]
    found = [problem for url in urls if (problem := attempt(url, tmp_path / "it", policy))]
    record |= {"hostile servers": len(urls), "findings": len(found)}
    assert not found, "\n".join(found)


def test_a_slow_tls_handshake_is_stopped_at_the_time_limit(tmp_path: Path) -> None:
    def drip() -> None:
        connection, _ = listening.accept()
        with closing(connection), suppress(OSError):
            connection.sendall(b"\x16\x03\x03\x3f\xff")  # a handshake record of 16 kB
            while True:
                connection.sendall(b"\x02")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, daemon=True).start()
        policy = Policy(1000, allow_private=True, seconds=1.0)
        began = time.monotonic()
        problem = attempt(f"https://127.0.0.1:{listening.getsockname()[1]}/", tmp_path / "it", policy)
    assert not problem
    assert quiet_seconds(time.monotonic() - began) < 3


def test_only_the_first_addresses_of_a_host_are_tried(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        port = int(files.url.rpartition(":")[2])
        ports = [1] * 100 + [port]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number)) for number in ports]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert attempt("http://many.example/", tmp_path / "it", Policy(1000, allow_private=True, seconds=1.0)) == ""
    assert files.connections == 0
