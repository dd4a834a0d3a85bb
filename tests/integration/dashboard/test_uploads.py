"""Uploads and downloads with a real uvicorn: permissions, storage, keys and limits."""

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.files import store
from dashboard.http import body as request_body
from dashboard.models import Membership, Role
from deployments.models import HostingAccount
from mms.images.sources.fetch import base_name
from tests.asgi_server import Server
from tests.ports import free_port
from tests.support import file_server
from tests.support.clock import quiet_seconds
from tests.support.lifecycle import present
from tests.support.programs import expired, revoked, token_of
from tests.twins import twins

pytestmark = pytest.mark.django_db(transaction=True)
CONTENT = b"weights of a model\r\n--not a boundary\r\n" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(file_server.application) as server:
        yield server


@pytest.fixture(autouse=True)
def no_files() -> Iterator[None]:
    """Check that every test begins and ends without stored and temporary files."""
    for path in settings.FILES_DIR.glob("*/*"):
        path.unlink()  # left by a test of another module
    yield
    for path in settings.FILES_DIR.glob("*/*"):
        path.unlink()
    assert list(settings.TMP_DIR.glob("upload-*")) == []


def sign_in(name: str, role: Role | None) -> str:
    """Create a user with this role in the account `team` and return their session cookie."""
    account, _ = HostingAccount.objects.get_or_create(
        name="team", base_url="http://x", subscription="s", resource_group="r", hosting_account="h"
    )
    user = get_user_model().objects.create_user(name)
    if role:
        Membership.objects.create(user=user, account_id=account.pk, role=role)
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@pytest.fixture
def scientist() -> str:
    return sign_in("ada", Role.SCIENTIST)


def headers(server: Server, cookie: str, **changes: str | None) -> dict[str, str]:
    sent = {"Cookie": cookie, "Origin": server.url, "Sec_Fetch_Site": "same-origin", **changes}
    return {name.replace("_", "-"): value for name, value in sent.items() if value is not None}


def send(server: Server, cookie: str, content: bytes = CONTENT, name: str = "model.pkl", **changes: Any) -> Any:
    return requests.post(
        f"{server.url}/uploads/?account={changes.pop('account', 'team')}{changes.pop('query', '')}",
        files={"file": (name, content)},
        headers=headers(server, cookie, **changes),
        allow_redirects=False,
        timeout=20,
    )


def fetch(server: Server, file: store.StoredFile, method: str = "GET", **sent: str) -> requests.Response:
    url = file.url.replace(settings.FILES_URL, server.url)
    return requests.request(method, url, headers={name.replace("_", "-"): text for name, text in sent.items()})


def test_an_uploaded_file_is_stored_by_its_sha256_and_downloaded_with_its_key(server: Server, scientist: str) -> None:
    answer = send(server, scientist)
    assert answer.status_code == 201
    found = answer.json()
    assert {**found, "file": ""} == {"file": "", "name": "model.pkl", "size": len(CONTENT), "sha256": DIGEST}
    assert "key=" not in answer.text
    path = settings.FILES_DIR / DIGEST[:2] / DIGEST
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600

    file = store.find_stored(found["file"])
    assert file == store.StoredFile(DIGEST, "model.pkl", len(CONTENT))
    got = fetch(server, file)
    assert got.content == CONTENT
    assert got.headers["content-length"] == str(len(CONTENT))
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["content-type"] == "application/octet-stream"


def test_the_same_file_is_stored_once(server: Server, scientist: str) -> None:
    tokens = [send(server, scientist, name=name).json()["file"] for name in ("a.pkl", "b.pkl")]
    assert len(list(settings.FILES_DIR.glob("*/*"))) == 1
    for token in tokens:
        assert fetch(server, present(store.find_stored(token))).content == CONTENT


def test_a_download_needs_the_right_key(server: Server, scientist: str) -> None:
    file = store.find_stored(send(server, scientist).json()["file"])
    good = present(file).url.replace(settings.FILES_URL, server.url)
    base, key = good.split("?key=")
    other = store.file_url("0" * 64, "model.pkl").replace(settings.FILES_URL, server.url)
    for url in (base, f"{base}?key=", f"{base}?key={'0' * 64}", good[:-1], good.replace("model.pkl", "other"), other):
        assert requests.get(url).status_code == 404, url
    assert requests.get(f"{server.url}/files/..%2f..%2fsecret_key/x?key={key}").status_code == 404
    assert requests.post(good).status_code == 405


def test_a_key_made_before_a_secret_key_change_still_works(server: Server, scientist: str, settings: Any) -> None:
    file = store.find_stored(send(server, scientist).json()["file"])
    url = present(file).url.replace(settings.FILES_URL, server.url)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret"
    assert requests.get(url).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert requests.get(url).status_code == 404


def test_range_requests_get_parts_of_a_file(server: Server, scientist: str) -> None:
    file = store.find_stored(send(server, scientist).json()["file"])
    size = len(CONTENT)
    for asked, start, end in [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=5-{size * 2}", 5, size),
        (f"bytes=-{size * 2}", 0, size),
    ]:
        got = fetch(server, present(file), range=asked)
        assert got.content == CONTENT[start:end], asked
        if end - start < size:
            assert (got.status_code, got.headers["content-range"]) == (206, f"bytes {start}-{end - 1}/{size}")
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=-", ""):
        assert fetch(server, present(file), range=asked).status_code == 200
    assert fetch(server, present(file), range=f"bytes={size}-").status_code == 416
    head = fetch(server, present(file), "HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))


@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_uploading_needs_permission_in_the_account(server: Server, role: Role | None) -> None:
    answer = send(server, sign_in("eve", role))
    assert answer.status_code == 403
    assert "team" in answer.json()["error"]["message"]
    assert list(settings.FILES_DIR.glob("*/*")) == []


def test_an_unknown_account_or_session_is_rejected(server: Server, scientist: str) -> None:
    assert send(server, scientist, account="other").status_code == 403
    assert send(server, "").status_code == 401
    assert send(server, f"{settings.SESSION_COOKIE_NAME}=forged").status_code == 401


def test_other_sites_cannot_upload_with_a_users_session(server: Server, scientist: str) -> None:
    for changes in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": None, "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": None, "Origin": "null"},
        {"Sec_Fetch_Site": None, "Origin": None},
        {"Sec_Fetch_Site": None, "Origin": None, "Referer": "http://evil.example/127.0.0.1"},
        {"Host": "evil.example"},
    ):
        assert send(server, scientist, **changes).status_code == 403, changes
    for changes in ({"Sec_Fetch_Site": None}, {"Sec_Fetch_Site": None, "Origin": None, "Referer": f"{server.url}/x"}):
        assert send(server, scientist, **changes).status_code == 201, changes


def test_the_sender_is_checked_before_the_body_is_read(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(5)
        host = f"127.0.0.1:{server.port}"
        connection.sendall(
            f"POST /uploads/?account=team HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\n"
            "content-type: multipart/form-data; boundary=b\r\ncontent-length: 2000000000\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_plain_form_is_redirected_with_the_token_or_the_error(server: Server, scientist: str) -> None:
    form: dict[str, Any] = {"Accept": "text/html,*/*", "query": "&next=/accounts/team/models/new/%3Ftag=a"}
    answer = send(server, scientist, **form)
    assert answer.status_code == 303
    place, _, token = answer.headers["location"].partition("&file=")
    assert place == "/accounts/team/models/new/?tag=a"
    assert present(store.find_stored(unquote(token))).sha256 == DIGEST

    began = time.monotonic()
    answer = send(server, scientist, content=b"", **form)
    assert answer.status_code == 303
    assert quiet_seconds(time.monotonic() - began) < 1
    assert answer.headers["location"].endswith("&upload_error=empty")


@pytest.mark.parametrize("back", ["//evil.example/", "http://evil.example/", "/\\evil.example", "javascript:x"])
def test_the_redirect_never_points_to_another_site(server: Server, scientist: str, back: str) -> None:
    answer = send(server, scientist, Accept="text/html", query=f"&next={back}")
    assert (answer.status_code, answer.headers.get("location")) == (201, None)


def test_a_large_file_is_rejected_with_or_without_content_length(server: Server, scientist: str, settings: Any) -> None:
    settings.UPLOAD_MAX_BYTES = 10_000
    answer = send(server, scientist)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")

    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n' + CONTENT + b"\r\n--b--\r\n"
    answer = requests.post(
        f"{server.url}/uploads/?account=team",
        data=iter([body[:9000], body[9000:20000], body[20000:]]),
        headers=headers(server, scientist, Content_Type="multipart/form-data; boundary=b"),
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert list(settings.FILES_DIR.glob("*/*")) == []


def test_forms_without_a_complete_file_are_rejected(server: Server, scientist: str) -> None:
    file = b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nabc'
    for body, kind, code in [
        (b"", "multipart/form-data; boundary=b", "failed"),
        (file, "multipart/form-data; boundary=b", "failed"),
        (b"nonsense", "multipart/form-data; boundary=b", "no_file"),
        (
            b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "no_file",
        ),
        (file + b"\r\n--b--\r\n", "multipart/form-data", "no_file"),
        (b"file=x", "application/x-www-form-urlencoded", "no_file"),
    ]:
        answer = requests.post(
            f"{server.url}/uploads/?account=team", data=body, headers=headers(server, scientist, Content_Type=kind)
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), (body, kind)


def test_other_fields_of_the_form_are_ignored(server: Server, scientist: str) -> None:
    form: dict[str, Any] = {"csrfmiddlewaretoken": (None, "x" * 64), "file": ("m.pkl", CONTENT), "last": (None, "y")}
    answer = requests.post(
        f"{server.url}/uploads/?account=team",
        files=form,
        headers=headers(server, scientist),
    )
    assert answer.json()["sha256"] == DIGEST


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("model.pkl", "model.pkl"),
        ("C:\\data\\iris model.pkl", "iris model.pkl"),
        ("../../etc/passwd", "passwd"),
        (".hidden", "hidden"),
        ("Grüße.zip", "Grüße.zip"),
        ("Modèle final (v2).pkl", "Modèle final (v2).pkl"),
        ("Mode\u0300le.pkl", "Modèle.pkl"),
        ("模型 #1?&%20;'=+@[x].pkl", "模型 #1?&%20;'=+@[x].pkl"),
        ("मॉडल\u200d.pkl", "मॉडल\u200d.pkl"),
        ("at 3.00\u202fPM.pkl", "at 3.00\u202fPM.pkl"),
        (" model.pkl ", "model.pkl"),
        ("evil\u202egpj.exe", "evil_gpj.exe"),
        ("a\x00\x1b\x7f\u2028\ufeffb\ud800.pkl", "a_b_.pkl"),
        ("x" * 250 + ".tar", "x" * 250 + ".tar"),
        ("x" * 300 + ".tar", "x" * 109 + ".tar"),
        ("é" * 200 + ".tar", "é" * 100 + ".tar"),
        ("é" * 200, "é" * 100),
        ("///", "file"),
        ("..", "file"),
        ('a"b\r\nc.py', 'a"b_c.py'),
    ],
)
def test_names_are_made_safe_for_paths_and_headers(sent: str, kept: str) -> None:
    assert store.safe_name(sent) == kept


@pytest.mark.parametrize(
    "header",
    [
        'filename="Modèle final (v2).pkl"',
        "filename*=UTF-8''Mod%C3%A8le%20final%20%28v2%29.pkl",
    ],
)
def test_a_file_keeps_its_name_from_the_upload_to_the_download(server: Server, scientist: str, header: str) -> None:
    body = f'--b\r\ncontent-disposition: form-data; name="file"; {header}\r\n\r\nx\r\n--b--\r\n'.encode()
    known = headers(server, scientist) | {"content-type": "multipart/form-data; boundary=b"}
    answer = requests.post(f"{server.url}/uploads/?account=team", data=body, headers=known)
    assert answer.json()["name"] == "Modèle final (v2).pkl"
    file = store.find_stored(answer.json()["file"])
    assert file
    path = file.url.partition("/files/")[2]
    assert path.partition("?")[0].endswith("/Mod%C3%A8le%20final%20%28v2%29.pkl")
    assert base_name(file.url) == "Modèle final (v2).pkl"
    assert requests.get(f"{server.url}/files/{path}").content == b"x"


def test_a_disconnect_during_the_upload_leaves_no_file(server: Server, scientist: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        host = f"127.0.0.1:{server.port}"
        connection.sendall(
            f"POST /uploads/?account=team HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\ncookie: {scientist}\r\n"
            "content-type: multipart/form-data; boundary=b\r\ncontent-length: 9000000\r\n\r\n--b\r\n"
            'content-disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
            + b"x" * 3_000_000
        )
        wait_until(lambda: list(settings.TMP_DIR.glob("upload-*")))
    wait_until(lambda: not list(settings.TMP_DIR.glob("upload-*")))


def test_a_full_disk_is_reported_and_leaves_no_file(
    server: Server, scientist: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("needs /dev/full")
    real = store.IncomingFile.__init__

    def on_a_full_disk(self: store.IncomingFile) -> None:
        real(self)
        self._file.close()
        self._file = open("/dev/full", "wb")  # noqa: SIM115, PTH123 - every write fails with ENOSPC, as on a full disk

    monkeypatch.setattr(store.IncomingFile, "__init__", on_a_full_disk)
    answer = send(server, scientist)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_space")
    assert os.strerror(errno.ENOSPC) not in answer.text
    assert list(settings.FILES_DIR.glob("*/*")) == []


def test_a_forged_token_or_one_of_a_deleted_file_is_invalid(server: Server, scientist: str) -> None:
    token = send(server, scientist).json()["file"]
    assert store.find_stored(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    assert store.find_stored("") is None
    store.path_of(DIGEST).unlink()
    assert store.find_stored(token) is None


def test_keys_are_masked() -> None:
    url = store.file_url(DIGEST, "model.pkl")
    text = store.mask_keys(f'{{"url": "{url}", "again": "{url}"}} http://other/?key=abc')
    assert text.count("?key=…") == 2
    assert url.split("?key=")[1] not in text
    assert text.endswith("http://other/?key=abc")


def wait_until(true: Any, seconds: float = 5) -> None:
    started = time.monotonic()
    while not true():
        assert quiet_seconds(time.monotonic() - started) < seconds
        time.sleep(0.02)


@pytest.mark.slow
@twins("megabytes", 256, 2048)
def test_a_large_upload_and_download_need_little_memory(scientist: str, tmp_path: Path, megabytes: int) -> None:
    """Measure the memory of a separate process during upload and download."""
    block, blocks = os.urandom(1024 * 1024), megabytes
    script = (
        "import django, sys; django.setup()\n"
        "from dashboard.files import upload; from tests.support import file_server\n"
        "upload._user_level = lambda scope, account: 4\n"  # the users of this test are in its own database
        "import uvicorn\n"
        "uvicorn.run(file_server.application, port=int(sys.argv[1]), lifespan='off', log_level='error')\n"
    )
    port = free_port()
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "dashboard.settings", "DATA_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(port)], env=environment)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20)
        head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'

        def body() -> Iterator[bytes]:
            yield head
            for _ in range(blocks):
                yield block
            yield b"\r\n--b--\r\n"

        sent = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "multipart/form-data; boundary=b"}
        answer = requests.post(f"http://127.0.0.1:{port}/uploads/?account=x", data=body(), headers=sent, timeout=300)
        assert answer.status_code == 201, answer.text
        assert answer.json()["size"] == blocks * len(block)
        url = store.file_url(answer.json()["sha256"], "big.bin").replace(settings.FILES_URL, f"http://127.0.0.1:{port}")
        digest = hashlib.sha256()
        with requests.get(url, stream=True, timeout=300) as got:
            for part in got.iter_content(1024 * 1024):
                digest.update(part)
        assert digest.hexdigest() == answer.json()["sha256"]
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(tmp_path)  # pytest would keep the two gigabytes of the last three runs
    assert peak < 300 * 1024**2, f"{peak / 1024**2:.0f} MB"
    print(f"peak {peak / 1024**2:.0f} MB")


def test_a_slow_upload_times_out_and_leaves_no_file(
    server: Server, scientist: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "PAUSE_SECONDS", 1.0)
    told = headers(server, scientist, Content_Type="multipart/form-data; boundary=x", Content_Length="1000")
    lines = ["POST /uploads/?account=team HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    lines += [f"{name}: {value}" for name, value in told.items()]
    begun = '--x\r\nContent-Disposition: form-data; name="file"; filename="m.bin"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(0.2)
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + begun).encode())
        assert drip(connection, 5) == b"HTTP/1.1 408 Request Timeout"


def drip(connection: socket.socket, seconds: float) -> bytes:
    """Send a byte five times a second until there is a response. Return its first line."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(b"-")
        try:
            return connection.recv(1000).partition(b"\r\n")[0]
        except TimeoutError:
            continue
    return b""


def by_token(server: Server, token: str, account: str = "team", **sent: str) -> requests.Response:
    """Upload a file as a program does: without cookie and origin."""
    headers = {"Authorization": f"Bearer {token}", **sent}
    place = f"{server.url}/uploads/?account={account}"
    return requests.post(place, files={"file": ("model.pkl", CONTENT)}, headers=headers, timeout=20)


def test_a_program_uploads_with_a_token_instead_of_a_cookie(server: Server, scientist: str) -> None:
    ada = get_user_model().objects.get(username="ada")
    answer = by_token(server, token_of(ada))
    assert answer.status_code == 201
    assert store.find_stored(answer.json()["file"]) == store.StoredFile(DIGEST, "model.pkl", len(CONTENT))


def test_a_token_without_permission_cannot_upload(server: Server, scientist: str) -> None:
    ada, eve = get_user_model().objects.get(username="ada"), get_user_model().objects.create_user("eve")
    other = HostingAccount.objects.create(
        name="other", base_url="http://x", subscription="s", resource_group="r", hosting_account="o"
    )
    for token in (token_of(ada, "read"), token_of(ada, account=other), token_of(eve)):
        refused = by_token(server, token)
        assert refused.status_code == 403
        assert "team" in refused.json()["error"]["message"]
    for token in (revoked(token_of(ada)), expired(token_of(ada)), "dash_unknown", "mms_token", ""):
        assert by_token(server, token).status_code == 401
    assert by_token(server, "dash_unknown", Cookie=scientist, Origin=server.url).status_code == 401
    assert by_token(server, token_of(ada), Host="evil.example").status_code == 403
    assert list(settings.FILES_DIR.glob("*/*")) == []
