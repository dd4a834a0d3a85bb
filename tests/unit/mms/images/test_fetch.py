"""Downloads from real servers. Failed downloads leave no files."""

import hashlib
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mms.images.sources.fetch import (
    Fetched,
    FetchError,
    Policy,
    base_name,
    fetch,
    redact_url,
)
from tests.doubles.files import Files, running_files
from tests.support.clock import quiet_seconds

MEBIBYTE = 1 << 20


@pytest.fixture
def files() -> Iterator[Files]:
    with running_files() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Files]:
    with running_files() as server:
        yield server


def exempt(files: Files, **changes: object) -> Policy:
    return Policy(**{"max_bytes": 16 * MEBIBYTE, "allow_below": (f"{files.url}/",), "seconds": 20.0, **changes})  # type: ignore[arg-type]


def refused(url: str, target: Path, policy: Policy) -> str:
    """Return why `url` can't be downloaded. Check that no file is left."""
    with pytest.raises(FetchError) as caught:
        fetch(url, target, policy)
    assert list(target.parent.iterdir()) == []
    return str(caught.value)


def test_a_file_arrives_with_its_digest_size_and_type(files: Files, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    url = files.put("/model.pkl", data, "application/x-pickle; charset=binary")
    fetched = fetch(url, tmp_path / "it", exempt(files))
    assert fetched == Fetched(hashlib.sha256(data).hexdigest(), len(data), "application/x-pickle")
    assert (tmp_path / "it").read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"x"])
def test_the_smallest_files_arrive(files: Files, tmp_path: Path, data: bytes) -> None:
    fetch(files.put("/it", data), tmp_path / "it", exempt(files))
    assert (tmp_path / "it").read_bytes() == data


def test_a_query_and_unusual_characters_reach_the_server(files: Files, tmp_path: Path) -> None:
    files.put("/m%C3%B6del%20v%2B1.pkl", b"x")
    fetch(f"{files.url}/mödel%20v%2B1.pkl?key=a%2Fb&c=d", tmp_path / "it", exempt(files))
    assert files.asked == ["/m%C3%B6del%20v%2B1.pkl?key=a%2Fb&c=d"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/model",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "data:text/plain,hello",
        "unix:///run/redis.sock",
        "HTTP:/example.org",
        "//example.org/model",
        "model.pkl",
        "",
        "http://",
        "http://[::1",
        "http://example.org:99999/",
        "http://example.org/a b",
        "http://example.org/\r\nX-Injected: 1",
        "http://user:secret@example.org/model",
    ],
)
def test_other_urls_are_rejected(tmp_path: Path, url: str) -> None:
    message = refused(url, tmp_path / "it", Policy(MEBIBYTE, allow_private=True))
    assert "secret" not in message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)
def test_loopback_is_rejected_in_every_spelling(files: Files, tmp_path: Path, host: str) -> None:
    port = files.url.rpartition(":")[2]
    message = refused(f"http://{host}:{port}/it", tmp_path / "it", Policy(MEBIBYTE))
    assert "private or reserved network" in message
    assert files.connections == 0


def test_the_exemption_is_for_one_exact_origin(files: Files, elsewhere: Files, tmp_path: Path) -> None:
    policy = exempt(files)
    refused(elsewhere.put("/it", b"x"), tmp_path / "it", policy)
    refused(files.url.replace("127.0.0.1", "localhost") + "/it", tmp_path / "it", policy)
    refused(files.url.replace("127.0.0.1", "127.0.0.2") + "/it", tmp_path / "it", policy)
    refused(files.url + "@" + elsewhere.url.removeprefix("http://") + "/it", tmp_path / "it", policy)
    assert files.connections == elsewhere.connections == 0


def test_private_networks_can_be_allowed(files: Files, tmp_path: Path) -> None:
    fetch(files.put("/it", b"x"), tmp_path / "it", Policy(MEBIBYTE, allow_private=True))


def test_a_redirect_into_the_private_network_is_refused(files: Files, elsewhere: Files, tmp_path: Path) -> None:
    url = files.redirect("/it", elsewhere.put("/secret", b"x"))
    assert "private or reserved" in refused(url, tmp_path / "it", exempt(files))
    assert elsewhere.connections == 0


def test_an_allowed_redirect_is_followed(files: Files, tmp_path: Path) -> None:
    files.put("/there/model", b"x")
    files.redirect("/second", "there/model", 307)
    fetch(files.redirect("/first", "/second", 301), tmp_path / "it", exempt(files))
    assert files.asked == ["/first", "/second", "/there/model"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "", "http://", "/again", "http://[::1"])
def test_an_invalid_redirect_is_rejected(files: Files, tmp_path: Path, target: str) -> None:
    refused(files.redirect("/again", target), tmp_path / "it", exempt(files))


def test_a_name_is_resolved_once_and_that_address_is_used(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first lookup returns a public address, a second one would return loopback."""
    port = int(files.url.rpartition(":")[2])
    answers = ["192.0.2.1", "127.0.0.1"]

    def resolve(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("mms.images.sources.fetch.is_public", lambda address: address == "192.0.2.1")
    refused(f"http://rebinding.example:{port}/it", tmp_path / "it", Policy(MEBIBYTE, seconds=0.5))
    assert answers == ["127.0.0.1"]
    assert files.connections == 0


def test_a_file_announced_as_too_large_is_not_downloaded(files: Files, tmp_path: Path) -> None:
    message = refused(files.put("/it", bytes(1001)), tmp_path / "it", exempt(files, max_bytes=1000))
    assert "1000 bytes" in message


def test_a_file_of_unknown_size_stops_at_the_limit(files: Files, tmp_path: Path) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(65536))
            sent += 65536

    refused(files.serve("/it", endless), tmp_path / "it", exempt(files, max_bytes=MEBIBYTE))
    assert sent < 16 * MEBIBYTE


def test_a_chunked_file_is_read_to_its_end(files: Files, tmp_path: Path) -> None:
    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    fetch(files.serve("/it", chunked), tmp_path / "it", exempt(files))
    assert (tmp_path / "it").read_bytes() == b"hello world"


def test_a_closed_connection_fails_the_download(files: Files, tmp_path: Path) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(bytes(600))

    assert "400 missing" in refused(files.serve("/it", broken), tmp_path / "it", exempt(files))


def test_a_broken_chunk_fails_the_download(files: Files, tmp_path: Path) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\nhello\r\nffff\r\n wor")

    refused(files.serve("/it", broken), tmp_path / "it", exempt(files))


@pytest.mark.parametrize("in_header", [True, False])
def test_a_slow_sender_is_stopped_at_the_time_limit(files: Files, tmp_path: Path, in_header: bool) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: " if in_header else b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            request.wfile.write(b"x")
            time.sleep(0.05)

    started = time.monotonic()
    message = refused(files.serve("/it", drip), tmp_path / "it", exempt(files, seconds=0.6))
    assert "took too long" in message
    assert quiet_seconds(time.monotonic() - started) < 3


def test_an_error_of_the_server_is_reported_without_the_key(files: Files, tmp_path: Path) -> None:
    message = refused(f"{files.url}/gone?key=hmac-secret", tmp_path / "it", exempt(files))
    assert message.startswith(f"Couldn't download {files.url}/gone: the server responded with 404")
    assert "secret" not in message


@pytest.mark.parametrize(
    "garbage", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 2xx\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500]
)
def test_an_invalid_response_is_reported(files: Files, tmp_path: Path, garbage: bytes) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(garbage)

    url = files.serve("/it", answer)
    message = refused(url, tmp_path / "it", exempt(files))
    assert message.startswith(f"Couldn't download {url}: ")


def test_unknown_names_and_closed_ports_are_reported(tmp_path: Path) -> None:
    policy = Policy(MEBIBYTE, allow_private=True)
    assert "host name is unknown" in refused("http://no-such-host.invalid/it", tmp_path / "it", policy)
    assert "refused" in refused("http://127.0.0.1:1/it", tmp_path / "it", policy)


def test_an_existing_file_is_not_overwritten(files: Files, tmp_path: Path) -> None:
    (tmp_path / "it").write_text("mine")
    with pytest.raises(FileExistsError):
        fetch(files.put("/it", b"x"), tmp_path / "it", exempt(files))
    assert (tmp_path / "it").read_text() == "mine"


def test_urls_are_redacted() -> None:
    assert redact_url("https://u:p@Example.org:8443/a/b?sig=x#y") == "https://example.org:8443/a/b"
    assert redact_url("http://[::1]:80/a") == "http://[::1]:80/a"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/model.pkl?x=/y", "model.pkl"),
        ("http://h/a%20b.pkl", "a b.pkl"),
        ("http://h/Mod%C3%A8le%20final%20(v2).pkl?key=1", "Modèle final (v2).pkl"),
        ("http://h/Mode%CC%80le.pkl", "Modèle.pkl"),
        ("http://h/50%25%20%23%3F.pkl", "50% #?.pkl"),
        ("http://h/at%20%E2%80%AFPM.pkl", "at \u202fPM.pkl"),
        ("http://h/evil%E2%80%AEgpj.exe", ""),
        ("http://h/", ""),
        ("http://h/a/..", ""),
        ("http://h/%2e%2e", ""),
        ("http://h/..%2f..%2fetc%2fpasswd", "passwd"),
        ("http://h/a%00b", ""),
        ("http://h/" + "a" * 300, ""),
    ],
)
def test_base_names_are_single_safe_names(url: str, name: str) -> None:
    assert base_name(url) == name
