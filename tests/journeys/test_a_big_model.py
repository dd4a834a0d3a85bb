"""A large model from upload to service: no process holds it in memory."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.journeys.api import Api
from tests.site import Site
from tests.support.lifecycle import present
from tests.twins import twins

pytestmark = pytest.mark.slow
# The documented limit is 300 MB for a model of 2 GB. Idle processes use up to 100 MB, so a quarter of the size may use
# a quarter of the rest. A process that held the model would exceed the limit in the short twin as well.
LIMIT = 150 << 20
DRIVER = b"""\
import os

size = 0


def init():
    global size
    size = os.stat("weights.bin").st_size


def run(body):
    return size
"""


class Watch:
    """Recorder of the peak resident memory of every process of a site, as reported by the kernel."""

    def __init__(self, site: Site) -> None:
        self.root = site.program("site:web").parent()
        self.peaks: dict[tuple[int, str], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for process in present(self.root).children(recursive=True):
                self._note(process)

    def _note(self, process: psutil.Process) -> None:
        try:
            with Path(f"/proc/{process.pid}/status").open() as status:
                peak = re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.MULTILINE)
            key = process.pid, " ".join(process.cmdline())
        except (psutil.Error, OSError):  # the process has ended
            return
        if peak:  # a zombie uses no memory
            self.peaks[key] = int(peak[1]) << 10

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@twins("megabytes", 128, 512)
def test_a_large_model_is_processed_in_small_parts(running: Site, api: Api, megabytes: int) -> None:
    session = _signed_in(running, f"porter-{megabytes}")
    block = os.urandom(1 << 20)
    with Watch(running) as watch:
        weights = _upload(session, running, "weights.bin", (block for _ in range(megabytes)))
        driver = _upload(session, running, "driver.py", iter([DRIVER]))
        status, model, _ = api.ask("POST", "models", {"name": f"big-{megabytes}", "url": weights})
        assert status == 201, model
        service = api.create_service(f"big-{megabytes}", api.create_image(_manifest(api, model["id"], driver)))
        assert api.score(service, {}) == (200, megabytes << 20)
        time.sleep(0.3)  # record every process again
    commands = " ".join(command for _, command in watch.peaks)
    assert all(part in commands for part in ("uvicorn", "mms.images.build", "-m scoring")), (
        "all relevant processes must have been recorded"
    )
    assert {command: peak for (_, command), peak in watch.peaks.items() if peak > LIMIT} == {}


def _signed_in(site: Site, name: str) -> requests.Session:
    site.manage("create_user", name, "--role", "admin", "--password-stdin", stdin="four words of mine\n")
    session = requests.Session()
    page = session.get(site.url)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    form = {"csrfmiddlewaretoken": token[1], "username": name, "password": "four words of mine"}
    assert session.post(page.url, form, headers={"Origin": site.url}).ok
    return session


def _upload(session: requests.Session, site: Site, name: str, blocks: Iterator[bytes]) -> str:
    """Upload a file as the forms do. Return the URL from which the MMS downloads it."""

    def form() -> Iterator[bytes]:
        yield f'--b\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        yield from blocks
        yield b"\r\n--b--\r\n"

    headers = {"Origin": site.url, "Content-Type": "multipart/form-data; boundary=b"}
    answer = session.post(f"{site.url}/uploads/?account=local", data=form(), headers=headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    code = f"from dashboard.files.store import file_url; print(file_url({found['sha256']!r}, {name!r}))"
    return site.manage("shell", "--no-imports", "-c", code)


def _manifest(api: Api, model: str, driver: str) -> str:
    body = {
        "modelType": "Registered",
        "modelIds": [model],
        "driverProgram": "driver",
        "assets": [{"id": "driver", "url": driver, "mimeType": "text/x-python", "unPack": False}],
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
    }
    status, manifest, _ = api.ask("POST", "manifests", body)
    assert status == 200, manifest
    return str(manifest["id"])
