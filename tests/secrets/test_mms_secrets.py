"""Leak test of the bundled MMS: unique values in every secret field, a real build and service, then a full search."""

import base64
import gzip
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import redis
import requests

from tests.contract.server import API_VERSION, KUBE_CONFIG
from tests.doubles import registry
from tests.doubles.files import Files, running_files
from tests.site import Site, wait_until

pytestmark = pytest.mark.slow

DRIVER = b"def init():\n    pass\n\n\ndef run(body):\n    return {'sent': body}\n"
BUILDING = ("mms.images.build", "uv pip", "compileall", "/scoring", "-m scoring")


@dataclass
class Used:
    site: Site
    planted: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)  # of the API and the gateway, except the response with the keys
    processes: dict[str, str] = field(default_factory=dict)  # recorded while it worked: command line and environment
    token: str = ""

    def plant(self, name: str) -> str:
        return self.planted.setdefault(name, f"planted-{secrets.token_hex(12)}")

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> requests.Response:
        url = f"{self.site.url}/api/subscriptions/local/resourceGroups/local/hostingAccounts/local/{path}"
        headers = {"Authorization": f"Bearer {token or self.token}"}
        answer = requests.request(
            method, url, json=body, params={"api-version": API_VERSION}, headers=headers, timeout=60
        )
        if "keys" not in path.lower():
            self.answers.append(answer.text + str(answer.headers))
        return answer

    def finished(self, accepted: requests.Response) -> dict[str, Any]:
        assert accepted.status_code == 202, accepted.text
        address = f"operations/{accepted.headers['x-ms-request-id']}"
        over = {"Succeeded", "Failed", "Canceled"}
        wait_until(lambda: self.ask("GET", address).json()["state"] in over, 180, "the operation", every=0.3)
        self.answers.append(self.ask("GET", f"{address}/log").text)
        return dict(self.ask("GET", address).json())


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    """Run a site at LOG_LEVEL=DEBUG and send and use every secret once."""
    folder = tmp_path_factory.mktemp("secrets")
    found = Used(Site(folder / "data"))
    environment = {"SECRET_KEY": found.plant("secret key"), "METRICS_TOKEN": found.plant("metrics token")}
    found.site.environment |= environment | {"LOG_LEVEL": "DEBUG", "MMS_FETCH_ALLOW_PRIVATE": "true"}
    with running_files() as files, pytest.MonkeyPatch.context() as patch, registry.running_registry("basic") as pushed:
        patch.setattr(registry, "PASSWORD", found.plant("registry password"))
        found.site.start()
        try:
            with Watched(found):
                use(found, files, pushed)
            yield found
        finally:
            found.site.stop()


class Watched:
    """Recorder of all processes of the site during a `with` block."""

    def __init__(self, used: Used) -> None:
        self.used, self.over = used, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        assert self.used.site.process
        up = psutil.Process(self.used.site.process.pid)
        while not self.over.wait(0.01):
            for process in [up, *up.children(recursive=True)]:
                with suppress(psutil.Error, OSError):
                    line = " ".join(process.cmdline())
                    if f"{process.pid} {line}" not in self.used.processes:
                        values = Path(f"/proc/{process.pid}/environ").read_bytes().decode(errors="replace")
                        self.used.processes[f"{process.pid} {line}"] = values


def use(used: Used, files: Files, pushed: registry.RegistryDouble) -> None:
    used.token = used.planted["token"] = used.site.manage("create_token", "--account", "local")
    used.planted["read token"] = used.site.manage("create_token", "--account", "local", "--scope", "read")
    for kind, token in (
        ("unknown token", "mms_" + secrets.token_urlsafe(32)),
        ("token of a person", "dash_" + "a" * 43),
    ):
        used.planted[kind] = token
        assert used.ask("GET", "models", token=token).status_code == 401
    assert used.ask("POST", "models", {}, token=used.planted["read token"]).status_code == 403

    signature = used.plant("signature in a URL")
    urls = {
        name: f"{files.put(f'/{name}', data)}?sig={signature}" for name, data in {"m.bin": b"x", "s.py": DRIVER}.items()
    }
    asset = {"id": "score", "url": urls["s.py"], "mimeType": "text/x-python"}
    model = {"name": "m", "url": urls["m.bin"]}
    assert used.ask("POST", "models", model).status_code == 201
    manifest: dict[str, Any] = {
        "driverProgram": "score",
        "modelType": "Registered",
        "modelIds": ["m"],
        "assets": [asset],
    }
    manifest |= {"targetRuntime": {"runtimeType": "Python"}}
    manifest_id = used.ask("POST", "manifests", manifest).json()["id"]
    gone = used.ask("POST", "models", {"name": "gone", "url": f"{files.url}/gone?sig={signature}"}).json()["id"]
    failing = used.ask("POST", "manifests", manifest | {"modelIds": [gone]}).json()["id"]

    def image(manifest: str, password: str) -> dict[str, Any]:
        info = {"user": registry.USER, "location": f"http://{pushed.location}/team", "password": password}
        return {"manifestId": manifest, "imageType": "Docker", "registryInfo": info}

    # rejected in every way that could return a secret
    refused = image(manifest_id, used.plant("refused password"))
    for body in (refused | {"colour": "red"}, refused | {"imageType": "x"}, refused | {"manifestId": "none"}):
        assert used.ask("POST", "images", body).status_code == 400
    long = image(manifest_id, used.plant("long password") + "x" * 9000)
    assert used.ask("POST", "images", long).status_code == 400
    assert used.ask("POST", "images", image(manifest_id, [used.plant("listed password")])).status_code == 400  # type: ignore[arg-type]
    wrong = used.finished(used.ask("POST", "images", image(manifest_id, used.plant("wrong password"))))
    assert wrong["state"] == "Failed", wrong
    assert (
        used.finished(used.ask("POST", "images", image(failing, used.planted["registry password"])))["state"]
        == "Failed"
    )

    built = used.finished(used.ask("POST", "images", image(manifest_id, used.planted["registry password"])))
    assert built["state"] == "Succeeded", built
    assert pushed.manifests, "the registry must have accepted the real password"
    image_id = built["resourceLocation"].rsplit("/", 1)[1]
    run_it(used, image_id)


def run_it(used: Used, image_id: str) -> None:
    name = "planted"
    kube_config = KUBE_CONFIG.replace("user: {}", f"user: {{token: {used.plant('kubeconfig')}}}")
    body = {"name": name, "imageId": image_id, "kubeConfig": kube_config, "acrImagePullSecret": "local"}
    elsewhere = kube_config.replace("process://local", f"https://u:{used.plant('password of a cluster')}@k8s.example")
    for broken in (elsewhere, kube_config + "\t:", kube_config.replace("{token", "*{token")):
        assert used.ask("POST", "services", body | {"kubeConfig": broken}).status_code == 400
    service = used.finished(used.ask("POST", "services", body))
    assert service["state"] == "Succeeded", service
    address = f"services/{service['resourceLocation'].rsplit('/', 1)[1]}"
    url = used.ask("GET", address).json()["scoringUri"]
    keys = used.ask("GET", f"{address}/keys").json()
    used.planted |= {"primary key": keys["primaryKey"], "secondary key": keys["secondaryKey"]}
    newer = used.ask("POST", f"{address}/regenerateKeys", {"keyType": "Primary"}).json()
    used.planted["newer key"] = newer["primaryKey"]
    used.plant("wrong key")

    def scored(key: str, path: str = "") -> int:
        answer = requests.post(f"{url}{path}", data="x", headers={"Authorization": f"Bearer {key}"}, timeout=30)
        used.answers.append(answer.text + str(answer.headers))
        return answer.status_code

    wait_until(lambda: scored(newer["primaryKey"]) == 200, 10, "the new key")
    for key in (used.planted["wrong key"], used.planted["primary key"], used.token):
        assert scored(key) == 401
    assert scored("x", f"?key={used.planted['wrong key']}") == 401
    used.ask("PUT", address, {"imageId": image_id, "acrImagePullSecret": "local"})
    for path in ("images", f"images/{image_id}", "services", address, f"{address}/logs", "models", "manifests"):
        used.ask("GET", path)
    metrics = requests.get(
        f"{used.site.url}/scoring/metrics",
        headers={"Authorization": f"Bearer {used.planted['metrics token']}"},
        timeout=10,
    )
    used.answers.append(metrics.text)
    used.answers.append(used.site.manage("list_tokens"))
    time.sleep(1)  # time to write the logs


def spellings(value: str) -> list[bytes]:
    """Return the value and its encoded forms, which a plain search would miss."""
    plain = value.encode()
    shifts = [base64.b64encode(b"x" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, quote(value).encode(), *shifts, plain.hex().encode(), plain[::-1]]


def contents(path: Path) -> bytes:
    """Return the bytes of a file, or the decompressed content of a layer."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError):
            return gzip.decompress(data)
    return data


def places(used: Used) -> Iterator[tuple[str, bytes]]:
    site = used.site
    for path in (*site.data.rglob("*"), site.log):
        if path.is_file() and not path.is_symlink() and "static" not in path.relative_to(site.data.parent).parts:
            with suppress(FileNotFoundError):
                yield str(path.relative_to(site.data.parent)), contents(path)
    for number, answer in enumerate(used.answers):
        yield f"answer {number}", answer.encode()
    for line in used.processes:
        yield f"command line of {line[:60]}", line.encode()
    link = redis.Redis(unix_socket_path=str(site.data / "run" / "redis.sock"))
    for key in link.scan_iter():
        yield f"Redis {key!r}", key + bytes(link.dump(key) or b"")


# Models, assets and their URLs aren't secrets for this server, which stores and shows them.
KEPT: dict[str, Callable[[str], bool]] = {
    "signature in a URL": lambda place: "db.sqlite3" in place or place.startswith("answer "),
}


def test_no_secret_of_the_mms_leaks(used: Used, record: dict[str, object]) -> None:
    found, searched = [], 0
    for place, text in places(used):
        searched += 1
        for name, value in used.planted.items():
            if any(spelling in text for spelling in spellings(value)) and not (name in KEPT and KEPT[name](place)):
                found.append(f"{name} in {place}")
    record |= {"secrets": len(used.planted), "places searched": searched, "findings": len(found)}
    assert not found, "\n".join(found)
    assert len(used.planted) >= 17
    assert searched > 100


def test_builders_and_services_get_no_secret_of_the_site(used: Used, record: dict[str, object]) -> None:
    """Only the site's programs have SECRET_KEY in their environment, not processes that build or run a model.

    launch.py belongs to the site: it replaces itself with the service, which gets a new environment.
    """
    begun = {line: values for line, values in used.processes.items() if any(word in line for word in BUILDING)}
    begun = {line: values for line, values in begun.items() if "launch.py" not in line}
    assert any("mms.images.build" in line for line in begun)
    assert any("uv pip" in line or "/uv " in line for line in used.processes)
    assert any("scoring" in line for line in begun)
    found = [
        f"{name} in the environment of {line[:80]}"
        for line, values in begun.items()
        for name, value in used.planted.items()
        if value in values
    ]
    record |= {"environments searched": len(begun), "findings": len(found)}
    assert not found, "\n".join(found)


def test_sockets_and_files_of_the_mms_are_accessible_to_their_owner_only(used: Used, record: dict[str, object]) -> None:
    """A socket with open permissions must be in a folder that other users can't enter."""
    data, found, sockets = used.site.data, [], 0
    for path in data.rglob("*"):
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                sockets += 1
                closed = any(
                    not folder.stat().st_mode & 0o077 for folder in path.parents if folder.is_relative_to(data)
                )
                if path.lstat().st_mode & 0o077 and not closed:
                    found.append(f"{path} has mode {path.lstat().st_mode:o}")
    for folder in ("run", "mms/routes", "mms/builds", "log", "run/services", "run/s"):
        if (data / folder).exists() and not _closed(data / folder, data):
            found.append(f"{folder} can be entered by others")
    record |= {"sockets looked at": sockets, "findings": len(found)}
    assert not found, "\n".join(found)
    assert sockets >= 3


def _closed(folder: Path, data: Path) -> bool:
    within = [folder, *(parent for parent in folder.parents if parent.is_relative_to(data))]
    return any(not path.stat().st_mode & 0o077 for path in within)


def test_the_search_finds_secrets_that_are_present(used: Used) -> None:
    texts = dict(places(used))
    assert any("/log/" in place for place in texts)
    assert any("builds/" in place and b"Step 1/6" in text for place, text in texts.items())
    assert any("blobs" in place and DRIVER in text for place, text in texts.items()), "layers must be searched"
    assert any(place.startswith("Redis") for place in texts)
    assert any(used.planted["signature in a URL"].encode() in text for place, text in texts.items() if "db" in place)
    hidden = base64.b64encode(b"user:" + used.planted["kubeconfig"].encode())
    assert any(spelling in hidden for spelling in spellings(used.planted["kubeconfig"]))
