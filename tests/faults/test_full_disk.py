"""A full disk under builds, uploads, logs and a whole site, which recovers once there is space."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from dashboard.files import store, upload
from dashboard.models import Role
from tests.asgi_server import Server
from tests.builder import Builder
from tests.doubles.files import Files, running_files
from tests.faults.browserless import Visitor
from tests.faults.disk import Disk, small_disk
from tests.integration.dashboard.test_uploads import send, sign_in
from tests.journeys.api import HERE, Api
from tests.site import ROOT, Site, wait_until
from tests.support import file_server
from tests.twins import twins

MB = 1024**2
DRIVER = b"def init():\n    pass\n\n\ndef run(body):\n    return {'echo': body}\n"


# --- builds ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_build_on_a_full_disk_fails_with_the_reason_in_any_step_and_the_next_one_succeeds(tmp_path: Path) -> None:
    with running_files() as served, small_disk(tmp_path / "disk", 64) as disk:
        served.put("/weights.bin", os.urandom(3 * MB))
        builder, steps = Builder(disk.folder, served), {}
        models = [builder.model(path="/weights.bin")]
        for room in (0, 4096, 96 * 1024, MB, 4 * MB, 6 * MB, 8 * MB, 10 * MB):
            disk.fill(leave=room)
            built = builder.build(models=models)
            disk.clear()
            if built.code:
                assert_no_space_error(built.result, disk.folder)
                steps[room] = built.result.get("error", {}).get("step", "")
        assert {"fetch", "layers"} <= set(steps.values()), steps
        whole = builder.build(models=models)
        builder.store.assemble(whole.digest)
        assert layers_of(Builder(tmp_path, served).build(models=models).result) == layers_of(whole.result)


def assert_no_space_error(result: dict[str, Any], folder: Path) -> None:
    """Check the error. If the result doesn't fit on the disk, the worker reports the error instead (see below)."""
    if result:
        assert result["error"]["code"] == "NoSpace"
        assert "No space left on device" in result["error"]["message"]
        assert f"the disk of {folder}" in result["error"]["message"]


def layers_of(result: dict[str, Any]) -> list[str]:
    return [layer["digest"] for layer in result["layers"]]


# --- uploads --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_upload_to_a_full_disk_is_rejected_and_succeeds_once_there_is_space(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "SPARE_BYTES", 0)
    content = os.urandom(6 * MB)
    with small_disk(tmp_path / "disk", 24) as disk, Server(file_server.application) as server:
        settings.TMP_DIR, settings.FILES_DIR = disk.folder / "tmp", disk.folder / "files"
        settings.TMP_DIR.mkdir()
        scientist = sign_in("ada", Role.SCIENTIST)
        for room in (0, 4096, 2 * MB, 5 * MB):
            disk.fill(leave=room)
            assert refused(send(server, scientist, content)) == (507, "no_space")
            assert refused(send_in_parts(server, scientist, content)) == (507, "no_space")
            assert list(settings.TMP_DIR.iterdir()) == []
        disk.clear()
        answer = send(server, scientist, content)
        assert answer.status_code == 201
        assert store.path_of(hashlib.sha256(content).hexdigest()).read_bytes() == content


def send_in_parts(server: Server, cookie: str, content: bytes) -> requests.Response:
    """Upload without a length, so that only the disk can reject it."""
    boundary = "b" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="m.bin"\r\n\r\n'.encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def parts() -> Iterator[bytes]:
        yield head
        yield from (content[at : at + 65536] for at in range(0, len(content), 65536))
        yield tail

    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    sent = {"Cookie": cookie, "Origin": server.url, "Sec-Fetch-Site": "same-origin", **kind}
    return requests.post(f"{server.url}/uploads/?account=team", data=parts(), headers=sent, timeout=20)


def refused(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_program_keeps_running_while_its_log_cannot_be_written(tmp_path: Path) -> None:
    """The output of a verbose program continues to be read, but is lost, also during rotation."""
    with small_disk(tmp_path / "disk", 8) as disk:
        talkative = "import time\nwhile True:\n    print('x' * 2000, flush=True); time.sleep(0.002)"
        script, config, log = tmp_path / "talk.py", tmp_path / "s.conf", disk.folder / "talk.log"
        script.write_text(talkative)
        config.write_text(
            f"[supervisord]\nnodaemon=true\nsilent=true\nlogfile={disk.folder}/supervisord.log\n"
            f"pidfile={tmp_path}/pid\n[program:talk]\ncommand={sys.executable} {script}\nredirect_stderr=true\n"
            f"stdout_logfile={log}\nstdout_logfile_maxbytes=20KB\nstdout_logfile_backups=1\nstartsecs=0\n"
        )
        command = [sys.executable, "-I", str(ROOT / "dashboard/ops/supervisor/supervisord.py"), "-c", str(config)]
        with (disk.folder / "stderr").open("wb") as stderr:
            supervisor = psutil.Popen(command, stdout=stderr, stderr=stderr)
        try:
            (program,) = wait_until(lambda: supervisor.children() if log.exists() else [], 10, "the program")
            for _ in range(40):  # until it has also been full during a rotation
                disk.fill()
                time.sleep(0.1)
            assert supervisor.is_running()
            assert supervisor.children() == [program]
            disk.clear()

            def size() -> int:
                return sum(path.stat().st_size for path in disk.folder.glob("talk.log*"))

            # A rotation on the full disk may have moved the log away without creating a new one.
            before = max((path.stat().st_mtime for path in disk.folder.glob("talk.log*")), default=0.0)
            wait_until(lambda: log.exists() and log.stat().st_mtime > before and size(), 10, "lines in the log again")
            assert supervisor.children() == [program]
        finally:
            supervisor.terminate()
            supervisor.wait(10)


# --- the whole site -------------------------------------------------------------------------------------------------


def build_and_serve(api: Api) -> str:
    """Deploy a service with the smallest image. Return its ID."""
    return api.create_service("small", api.made(ask_for_image(api, "model.bin")))


def ask_for_image(api: Api, model: str) -> Any:
    """Request an image. Return the headers of the response."""
    _, registered, _ = api.ask("POST", "models", {"name": "small", "url": f"{api.files_url}/{model}"})
    body = {
        "modelType": "Registered",
        "modelIds": [registered["id"]],
        "driverProgram": "score",
        "assets": [{"id": "score", "url": f"{api.files_url}/score.py", "mimeType": "text/x-python", "unPack": False}],
        "targetRuntime": {"runtimeType": "Python", "properties": {"pipRequirements": ""}},
    }
    _, manifest, _ = api.ask("POST", "manifests", body)
    wanted = {"manifestId": manifest["id"], "imageType": "Docker", "registryInfo": HERE}
    status, answer, headers = api.ask("POST", "images", wanted)
    assert status == 202, answer
    return headers


def serve(files: Files) -> None:
    files.put("/score.py", DRIVER)
    files.put("/model.bin", b"a model")
    files.put("/big.bin", os.urandom(40 * MB))


def pids(site: Site) -> dict[str, str]:
    names = ("site:web", "site:worker", "site:mms-worker", "site:beat", "redis")
    return {name: site.supervisorctl("pid", name) for name in names}


def stream_status(ann: Visitor) -> int:
    with ann.session.get(f"{ann.site.url}/stream?position=0", stream=True, timeout=20) as answer:
        return answer.status_code


@pytest.mark.slow
@twins("seconds", 18, 45)
def test_a_site_recovers_from_a_full_disk_without_loss(tmp_path: Path, seconds: int) -> None:
    with running_files() as served, small_disk(Path("/tmp") / f"d{os.getpid()}", 400) as disk:
        serve(served)
        site = Site(disk.folder / "data", MMS_FETCH_ALLOW_PRIVATE="true")
        try:
            site.start()
            fill_the_disk_and_recover(site, disk, Api(site, served.url), seconds)
        finally:
            site.stop()


def fill_the_disk_and_recover(site: Site, disk: Disk, api: Api, seconds: int) -> None:
    ann = Visitor(site, "ann", "scientist")
    service = build_and_serve(api)
    uri = api.service(service)["scoringUri"]
    key = api.ask("GET", f"services/{service}/keys")[1]["primaryKey"]
    assert ann.post_model("before").status_code == 302
    before = pids(site)
    assert stream_status(ann) == 200

    disk.fill(leave=8 * MB)
    building = ask_for_image(api, "big.bin")
    assert_build_failed_without_space(api, building)
    disk.fill()
    full_since = time.monotonic()
    told: list[tuple[int, int]] = []
    while time.monotonic() - full_since < seconds:
        told.append((ann.get("/accounts/local/models/").status_code, ann.post_model(f"full-{len(told)}").status_code))
        assert score(uri, key) == 200
        if len(told) == 5:
            kill_service(site)
            wait_until(lambda: score(uri, key) == 200, 20, "the service, started again on the full disk")
        time.sleep(3)
    status, parts = site.health()
    assert status == 503
    assert "No space left on device" in parts["data folder"]
    assert {read for read, _ in told} == {200}
    assert 503 in {written for _, written in told}
    assert {written for _, written in told} <= {503, 302}
    assert stream_status(ann) == 503, "the stream would send nothing, and the page would still show that it is live"
    kept = [f"full-{number}" for number, (_, written) in enumerate(told) if written == 302]

    disk.clear()
    freed = time.monotonic()
    wait_until(lambda: site.health()[0] == 200, 60, f"a healthy site: {site.health()}")
    print(f"healthy {time.monotonic() - freed:.1f} s after there was room again")
    assert pids(site) == before, "a process was restarted"
    assert stream_status(ann) == 200
    assert ann.post_model("after").status_code == 302
    page = wait_until(lambda: all_over(ann), 60, "the end of every operation")
    for name in ["before", "after", *kept]:
        assert name in page
    assert page.count("data-state=") == page.count('data-state="succeeded"')
    assert api.made(ask_for_image(api, "big.bin"))
    assert score(uri, key) == 200


def assert_build_failed_without_space(api: Api, headers: Any) -> None:
    def over() -> dict[str, Any] | None:
        _, operation, _ = api.ask("GET", f"operations/{headers['x-ms-request-id']}")
        return operation if operation.get("state") not in {"NotStarted", "Running"} else None

    operation = wait_until(over, 60, "the end of the build")
    assert operation["state"] == "Failed"
    assert "No space left on device" in operation["error"]["message"]
    assert list((api_folder(api) / "tmp").glob("build-*")) == []


def api_folder(api: Api) -> Path:
    return api.site.data


def all_over(ann: Visitor) -> str:
    page = ann.get("/accounts/local/operations/").text
    open_states = ("queued", "sending", "uncertain", "not_started", "running")
    return "" if any(f'data-state="{state}"' in page for state in open_states) else page


def score(uri: str, key: str) -> int:
    answer = requests.post(uri, json={"x": 1}, headers={"Authorization": f"Bearer {key}"}, timeout=30)
    return answer.status_code


def kill_service(site: Site) -> None:
    (name,) = [line.split()[0] for line in site.supervisorctl("status").splitlines() if line.startswith("mms-")]
    psutil.Process(int(site.supervisorctl("pid", name))).kill()
