"""The real image builder in a separate process, as the MMS runs it, with files from a real HTTP server."""

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mms.images.store.layout import Store
from mms.system import die_with_parent
from tests.doubles.files import Files

DRIVER = b"def init():\n    pass\n\n\ndef run(body):\n    return body\n"


@dataclass
class Built:
    code: int
    log: str
    result: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        assert self.code == 1, self.log
        return self.result["error"]

    @property
    def digest(self) -> str:
        assert self.code == 0, self.log
        return self.result["digest"]


def pip_config(folder: Path, **options: str) -> Path:
    """Write a pip configuration file. Return its path."""
    path = folder / "pip.conf"
    lines = [f"{name.replace('_', '-')} = {value}\n" for name, value in options.items()]
    path.write_text("".join(["[global]\n", *lines]))
    return path


class Builder:
    """Image builder that writes to the store in `folder` and downloads from `files`. The driver is at /score.py."""

    def __init__(self, folder: Path, files: Files) -> None:
        self.folder, self.files = folder, files
        self.tmp = folder / "tmp"
        self.store = Store(folder / "mms")
        self.store.root.mkdir(parents=True, exist_ok=True)
        self.tmp.mkdir(exist_ok=True)
        files.put("/score.py", DRIVER)
        files.put("/model.pkl", b"the model")

    def model(
        self, name: str = "iris", version: int = 1, path: str = "/model.pkl", unpack: bool = False
    ) -> dict[str, Any]:
        return {"name": name, "version": version, "url": self.files.url + path, "unpack": unpack, "mime_type": ""}

    def asset(self, id: str = "score", path: str = "/score.py", unpack: bool = False) -> dict[str, Any]:
        return {"id": id, "url": self.files.url + path, "unpack": unpack, "mime_type": ""}

    def spec(self, **changes: Any) -> dict[str, Any]:
        image_id = str(uuid.uuid4())
        return {
            "store": str(self.store.root),
            "tmp": str(self.tmp),
            "result": str(self.folder / f"{image_id}.json"),
            "image_id": image_id,
            "description": "",
            "models": [self.model()],
            "assets": [self.asset()],
            "driver": "score",
            "runtime_type": "Python",
            "pip_requirements": "",
            "conda_env_file": "",
            "registry": {"location": "oci://local", "user": "local", "password": ""},
            "repository": "local/iris",
            "tag": image_id,
            "base": "",
            "fetch": {
                "max_bytes": 4 << 30,
                "unpack_max_bytes": 4 << 30,
                "allow_private": False,
                "allow_below": [f"{self.files.url}/"],
            },
            "python": sys.executable,
        } | changes

    def start(self, spec: dict[str, Any], memory: int = 0, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mms.images.build"]
        process = subprocess.Popen(
            die_with_parent.wrap(*command, memory=memory) if memory else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
        )
        assert process.stdin
        process.stdin.write(json.dumps(spec))
        process.stdin.close()
        return process

    def build(self, pip: dict[str, str] | None = None, memory: int = 0, **changes: Any) -> Built:
        """Build an image. `pip` has the options of the site's pip configuration file."""
        spec = self.spec(**changes)
        if pip:
            spec["pip_config"] = str(pip_config(self.folder, **pip))
        process = self.start(spec, memory)
        assert process.stdout
        log = process.stdout.read()
        code = process.wait()
        path = Path(spec["result"])
        assert list(self.tmp.iterdir()) == [], "the build left something behind"
        result = path.read_bytes().strip() if path.exists() else b""
        return Built(code, log, json.loads(result) if result else {})
