"""A real supervisord with its own data folder, and small real images for the process engine."""

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import httptools

import mms.scoring
from mms.engines.process.supervisor import Supervisor
from mms.images.runtimes import HOST_PYTHON
from mms.images.store.layers import Layer
from mms.images.store.layout import CONFIG_TYPE, LAYER_ANNOTATION, MANIFEST_TYPE, Store
from mms.system.supervisor_config import escape
from tests.support.clock import quiet_seconds

RESULT = TypeVar("RESULT")
ECHO = "def init():\n    pass\n\ndef run(body):\n    return {'echo': body}\n"


class Site:
    """Data folder with a supervisord, as `up` creates it."""

    def __init__(self, data: Path) -> None:
        self.data, self.mms, self.run = data, data / "mms", data / "run"
        self.socket = self.run / "supervisor.sock"
        self.supervisor = Supervisor(self.socket)
        self.log = data / "supervisord.log"
        for folder in (self.mms, self.run / "services"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Site":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.connect(str(self.socket))
            return True
        return False

    def start(self, **environment: str) -> None:
        config = self.run / "supervisord.conf"
        log, run, data, socket = (escape(str(path)) for path in (self.log, self.run, self.data, self.socket))
        text = (
            f"[supervisord]\nnodaemon=true\nsilent=true\nlogfile={log}\npidfile={run}/supervisord.pid\n"
            f"childlogdir={data}\numask=077\n[unix_http_server]\nfile={socket}\nchmod=0700\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[include]\nfiles=services/*.conf\n"
        )
        config.write_text(text)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        self.socket.unlink(missing_ok=True)  # left by a stopped supervisord
        self._process = subprocess.Popen(command, env=environment or None, stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def stop(self) -> None:
        """Stop supervisord as Ctrl-C does."""
        if self._process:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(10)
        self._process = None
        self.socket.unlink(missing_ok=True)

    def children(self) -> list[int]:
        """Return the processes of this data folder's services: its path is in their command, environment or mounts."""
        folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
        own = self._process.pid if self._process else 0
        return [int(folder.name) for folder in folders if int(folder.name) != own and self._concerns(folder)]

    def _concerns(self, process: Path) -> bool:
        try:
            known = b"".join((process / name).read_bytes() for name in ("cmdline", "environ", "mountinfo"))
        except OSError:  # the process has ended
            return False
        # The layers of services are in this folder. The Redis of the tests may use the same data folder.
        return f"{self.mms}/".encode() in known


def wait_until(condition: Callable[[], RESULT | Literal[False] | None], seconds: float = 15.0) -> RESULT:
    """Call `condition` until it returns a true value, and return that."""
    started = time.monotonic()
    while not (found := condition()):
        assert quiet_seconds(time.monotonic() - started) < seconds, "the condition wasn't met in time"
        time.sleep(0.02)
    return found


def make_image(store: Store, driver: str = ECHO, python: str = HOST_PYTHON, architecture: str = "amd64") -> str:
    """Store an image with this driver and the real scoring program. Return its digest."""
    store.prepare()
    layers = {"runtime": _runtime_layer(store), "app": _app_layer(store, driver)}
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {"Labels": {"mms.python": python}},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers.values()]},
    }
    descriptors = [
        {"digest": layer.digest, "size": layer.size, "annotations": {LAYER_ANNOTATION: what}}
        for what, layer in layers.items()
    ]
    manifest = {"config": store.add_json(config, CONFIG_TYPE), "layers": descriptors}
    return str(store.add_json(manifest, MANIFEST_TYPE)["digest"])


def _runtime_layer(store: Store) -> Layer:
    tree = _tree(store)
    runtime = tree / "opt/mms/runtime"
    for package in (mms.scoring, httptools):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, runtime / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return store.add_layer(f"runtime-{uuid.uuid4().hex}", tree)


def _app_layer(store: Store, driver: str) -> Layer:
    tree = _tree(store)
    for folder in ("app", "opt/mms"):
        (tree / folder).mkdir(parents=True)
    (tree / "app/score.py").write_text(driver)
    app: dict[str, Any] = {"driver": "score.py", "schema": None, "models": [], "runtime_type": "Python"}
    (tree / "opt/mms/app.json").write_text(json.dumps(app))
    return store.add_layer(f"app-{uuid.uuid4().hex}", tree)


def _tree(store: Store) -> Path:
    tree = store.root / f".tree-{uuid.uuid4().hex}"
    tree.mkdir()
    return tree
