"""Run the image builder for one image: a subprocess of its own, watched, limited, killed with everything it started."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.conf import settings

from mms.images import runtimes
from mms.images.packages import install
from mms.images.store.layout import Store, replace_file
from mms.models import Image, Model
from mms.system import die_with_parent, disk

UPLOAD = re.compile(r"/files/[0-9a-f]{64}/")  # how the dashboard's own uploads go on after FILES_URL
DISK_FULL_BYTES = 1 << 16  # bytes: the disk is so full that the builder could not even say so
STORE_WAIT_SECONDS = 20.0  # seconds that a start waits for who takes things out of the store
TERMINATE_SECONDS = 5.0  # seconds between SIGTERM and SIGKILL
# Of the environment, what the build must not see. Index credentials of uv and pip are meant for it.
SECRET_VARIABLE = re.compile(
    r"(?!UV_|PIP_).*(SECRET|TOKEN|PASSW|CREDENTIAL|_KEY(_|$)|DSN|DATABASE_URL|REDIS_URL|BROKER)", re.IGNORECASE
)

logger = logging.getLogger(__name__)


class BuildError(Exception):
    """The build ended without an image; `details` end with the last lines of its log."""

    def __init__(self, code: str, message: str, details: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


class BuildStoppedError(Exception):
    """The build was stopped because `stop` said so."""


def log_path(image_id: Any) -> Path:
    return Path(settings.MMS_DIR) / "builds" / f"{image_id}.log"


def build(image: Image, stop: Callable[[], bool]) -> dict[str, Any]:
    """Build `image` and return what the builder reports (digest, reference, size, layers…).

    `stop` is called about once a second. Raises BuildError, or BuildStoppedError if `stop` returned True. In any
    case, no process and no temporary file of the build is left.
    """
    cleanup(image.id)  # what a killed worker left behind
    directory = Path(tempfile.mkdtemp(prefix=f"build-{image.id}-", dir=settings.TMP_DIR))
    try:
        code = _run(specification(image, directory), log_path(image.id), directory, stop)
        return _result(directory / "result.json", code, log_path(image.id))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def vacuum() -> None:
    """Put the store in order. Only for who knows that nothing of this MMS runs; a prune may."""
    install.clear_cache(Path(settings.MMS_DIR) / "cache")
    store = Store(Path(settings.MMS_DIR))
    with _alone_soon(store) as alone:
        store.prepare(exclusive=alone)
        if alone:
            _mind_a_reboot(store)
        else:
            logger.warning("%s is in use by another process: the next start clears what was left there.", store.root)
    built = Image.objects.exclude(digest="").values_list("id", "digest")
    store.restore_names({str(id): digest for id, digest in built})


@contextmanager
def _alone_soon(store: Store) -> Iterator[bool]:
    """Be alone in the store; yields False where that cannot be had within STORE_WAIT_SECONDS, which no prune takes."""
    until = time.monotonic() + STORE_WAIT_SECONDS
    while True:
        with store.exclusive() as alone:
            if alone or time.monotonic() > until:
                yield alone
                return
        time.sleep(0.1)


def _mind_a_reboot(store: Store) -> None:
    noted, boot = store.root / "boot", disk.boot_id()
    if not noted.exists() or noted.read_text() != boot:
        store.remove_recent_trees()
        replace_file(noted, boot.encode())


def cleanup(image_id: Any) -> None:
    """Remove the temporary files of all builds of this image, and what killed processes left in the store."""
    for directory in Path(settings.TMP_DIR).glob(f"build-{image_id}-*"):
        shutil.rmtree(directory, ignore_errors=True)
    install.clear_cache(Path(settings.MMS_DIR) / "cache")
    Store(Path(settings.MMS_DIR)).prepare()


def _run(spec: dict[str, Any], log: Path, directory: Path, stop: Callable[[], bool]) -> int:
    """The exit code of the builder. It reads its specification, with the registry's password, from a pipe."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = die_with_parent.wrap(sys.executable, "-m", "mms.images.build")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.BASE_DIR,
            env=environment(directory),
            start_new_session=True,
        )
        try:
            return _wait(process, json.dumps(spec).encode(), stop)
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], spec: bytes, stop: Callable[[], bool]) -> int:
    deadline = time.monotonic() + settings.MMS_BUILD_TIMEOUT
    unsent: bytes | None = spec
    while True:
        try:
            process.communicate(unsent, timeout=1.0)
            return process.returncode
        except subprocess.TimeoutExpired:
            unsent = None  # communicate() goes on with what it has
        if stop():
            raise BuildStoppedError
        if time.monotonic() > deadline:
            seconds = settings.MMS_BUILD_TIMEOUT
            raise BuildError("BuildTimeout", f"The build took longer than {seconds} s (MMS_BUILD_TIMEOUT).", [])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the builder and its children: asked first, then killed. The group outlives its leader, so it always goes."""
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_SECONDS)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _result(path: Path, code: int, log: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError):
        if shutil.disk_usage(path.parent).free < DISK_FULL_BYTES:
            message = f"No space left on device: the disk of {settings.DATA_DIR} is full. Make room, then try again."
            raise BuildError("NoSpace", message, last_lines(log)) from None
        message = f"The builder {_ending(code)} before it could say why."
        raise BuildError("BuildCrashed", message, last_lines(log)) from None
    if error := result.get("error"):
        raise BuildError(error["code"], error["message"], error.get("details", []))
    return result


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL (somebody killed it, or the machine ran out of memory)"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def last_lines(log: Path, count: int = 20) -> list[dict[str, str]]:
    """The end of a log, as one detail of an error."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 8192, 0))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return [{"code": "Log", "message": "\n".join(lines), "target": "log"}] if lines else []


def specification(image: Image, directory: Path) -> dict[str, Any]:
    """What the builder is told; see mms.images.build."""
    manifest = image.manifest
    found = {str(model.id): model for model in Model.objects.filter(id__in=manifest.resolved_model_ids)}
    runtime = runtimes.canonical_name(manifest.runtime_type)
    return {
        "store": str(settings.MMS_DIR),
        "tmp": str(directory),
        "result": str(directory / "result.json"),
        "image_id": str(image.id),
        "description": image.description,
        "models": [_model(found[id]) for id in manifest.resolved_model_ids],
        "assets": [
            {
                "id": item["id"],
                "url": current_url(item["url"]),
                "mime_type": item["mimeType"],
                "unpack": item["unPack"],
            }
            for item in manifest.assets
        ],
        "driver": manifest.driver_program,
        "runtime_type": runtime,
        "pip_requirements": current_url(manifest.properties.get("pipRequirements", "")),
        "conda_env_file": current_url(manifest.properties.get("condaEnvFile", "")),
        "registry": {
            "location": image.registry_location,
            "user": image.registry_user,
            "password": image.registry_password or "",
        },
        "repository": repository(image.account.name, found[manifest.resolved_model_ids[0]].name),
        "tag": str(image.id),
        "base": settings.MMS_BASE_IMAGE,
        "fetch": {
            "max_bytes": settings.MMS_FETCH_MAX_BYTES,
            "unpack_max_bytes": settings.MMS_UNPACK_MAX_BYTES,
            "allow_private": settings.MMS_FETCH_ALLOW_PRIVATE,
            "allow_below": [f"{settings.FILES_URL}/files/"],
        },
        "python": sys.executable,
    }


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "url": current_url(model.url),
        "unpack": model.unpack,
        "mime_type": model.mime_type,
    }


def current_url(url: str) -> str:
    """`url`, or where an upload that was registered under a former FILES_URL is now. Other text is left alone."""
    for former in settings.FORMER_FILES_URLS:
        if url.startswith(former) and UPLOAD.match(url, len(former)):
            return f"{settings.FILES_URL}{url[len(former) :]}"
    return url


def repository(*parts: str) -> str:
    """A repository name as registries allow it: lower case letters, digits and single hyphens between slashes."""
    return "/".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "x" for part in parts)


def environment(directory: Path) -> dict[str, str]:
    """The worker's environment (proxies, certificates, package index) without what looks like a secret of the site."""
    kept = {name: value for name, value in os.environ.items() if not SECRET_VARIABLE.match(name)}
    return kept | {"TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
