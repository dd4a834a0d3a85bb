"""Run the image builder in a subprocess with a time limit, and kill it with all of its children."""

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
from mms.system.trees import remove_tree

UPLOAD = re.compile(r"/files/[0-9a-f]{64}/")  # paths of the dashboard's uploads below FILES_URL
DISK_FULL_BYTES = 1 << 16  # with less free space, the builder couldn't even write its error
STORE_WAIT_SECONDS = 20.0  # how long a start waits for a prune that has the store locked
TERMINATE_SECONDS = 5.0  # between SIGTERM and SIGKILL
# Environment variables that builds must not see: secrets, and settings of uv and pip.
HIDDEN_VARIABLE = re.compile(
    r"(UV|PIP)_|.*(SECRET|TOKEN|PASSW|CREDENTIAL|_KEY(_|$)|DSN|DATABASE_URL|REDIS_URL|BROKER)", re.IGNORECASE
)

logger = logging.getLogger(__name__)


class BuildError(Exception):
    """The build failed. `details` ends with the last lines of its log."""

    def __init__(self, code: str, message: str, details: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


class BuildStoppedError(Exception):
    """The build was stopped because `stop` returned True."""


def log_path(image_id: Any) -> Path:
    """Return the path of an image's build log."""
    return Path(settings.MMS_DIR) / "builds" / f"{image_id}.log"


def build(image: Image, stop: Callable[[], bool]) -> dict[str, Any]:
    """Build `image` and return what the builder reports (digest, reference, size, layers…).

    `stop` is called about once a second. Raises BuildError, or BuildStoppedError if `stop` returned True. In any
    case, no process and no temporary file of the build is left.
    """
    cleanup(image.id)  # of a killed worker
    directory = Path(tempfile.mkdtemp(prefix=f"build-{image.id}-", dir=settings.TMP_DIR))
    try:
        code = _run(specification(image, directory), log_path(image.id), directory, stop)
        return _result(directory / "result.json", code, log_path(image.id))
    finally:
        remove_tree(directory)


def vacuum() -> None:
    """Clean up the store. Nothing else of this MMS may be running, except a prune."""
    install.clear_cache(Path(settings.MMS_DIR) / "cache")
    store = Store(Path(settings.MMS_DIR))
    with _wait_for_lock(store) as is_locked:
        store.prepare(exclusive=is_locked)
        if is_locked:
            _remove_recent_after_reboot(store)
        else:
            logger.warning("%s is in use by another process. The next start will clean it up.", store.root)
    built = Image.objects.exclude(digest="").values_list("id", "digest")
    store.restore_names({str(id): digest for id, digest in built})


@contextmanager
def _wait_for_lock(store: Store) -> Iterator[bool]:
    """Lock the store for this process alone. Yield False after STORE_WAIT_SECONDS, longer than a prune takes."""
    until = time.monotonic() + STORE_WAIT_SECONDS
    while True:
        with store.exclusive() as is_locked:
            if is_locked or time.monotonic() > until:
                yield is_locked
                return
        time.sleep(0.1)


def _remove_recent_after_reboot(store: Store) -> None:
    """Remove unpacked trees that may not have reached the disk before the machine restarted."""
    recorded, boot = store.root / "boot", disk.boot_id()
    if not recorded.exists() or recorded.read_text() != boot:
        store.remove_recent_trees()
        replace_file(recorded, boot.encode())


def cleanup(image_id: Any) -> None:
    """Remove the temporary files of all builds of this image, and leftovers of killed processes in the store."""
    for directory in Path(settings.TMP_DIR).glob(f"build-{image_id}-*"):
        remove_tree(directory)
    install.clear_cache(Path(settings.MMS_DIR) / "cache")
    Store(Path(settings.MMS_DIR)).prepare()


def _run(spec: dict[str, Any], log: Path, directory: Path, stop: Callable[[], bool]) -> int:
    """Return the exit code of the builder. It reads its specification, with the registry's password, from a pipe."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = die_with_parent.wrap(sys.executable, "-m", "mms.images.build", memory=settings.MMS_BUILD_MEMORY)
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
            unsent = None  # communicate() continues with the data it has
        if stop():
            raise BuildStoppedError
        if time.monotonic() > deadline:
            seconds = settings.MMS_BUILD_TIMEOUT
            raise BuildError("BuildTimeout", f"The build took longer than {seconds} s (MMS_BUILD_TIMEOUT).", [])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate the builder, then kill its process group, which may outlive it."""
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
        result: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        if shutil.disk_usage(path.parent).free < DISK_FULL_BYTES:
            message = f"No space left on device: the disk of {settings.DATA_DIR} is full. Free space, then retry."
            raise BuildError("NoSpace", message, last_lines(log)) from None
        message = f"The builder {_describe_exit(code)} without reporting an error. The last lines of its log follow."
        raise BuildError("BuildCrashed", message, last_lines(log)) from None
    if error := result.get("error"):
        raise BuildError(error["code"], error["message"], error.get("details", []))
    return result


def _describe_exit(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL (it was killed, or the machine ran out of memory)"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def last_lines(log: Path, count: int = 20) -> list[dict[str, str]]:
    """Return the last lines of a log as one detail of an error."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 8192, 0))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return [{"code": "Log", "message": "\n".join(lines), "target": "log"}] if lines else []


def specification(image: Image, directory: Path) -> dict[str, Any]:
    """Return the builder's input; see mms.images.build."""
    manifest = image.manifest
    models = {str(model.id): model for model in Model.objects.filter(id__in=manifest.resolved_model_ids)}
    runtime = runtimes.canonical_name(manifest.runtime_type)
    return {
        "store": str(settings.MMS_DIR),
        "tmp": str(directory),
        "result": str(directory / "result.json"),
        "image_id": str(image.id),
        "description": image.description,
        "models": [_model(models[id]) for id in manifest.resolved_model_ids],
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
        "private_hosts": [*settings.PRIVATE_HOSTS, *settings.MMS_REGISTRIES],
        "repository": repository(image.account.name, models[manifest.resolved_model_ids[0]].name),
        "tag": str(image.id),
        "base": settings.MMS_BASE_IMAGE,
        "pip_config": settings.MMS_PIP_CONFIG,
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
    """Return `url`, with a former FILES_URL of an upload replaced by the current one. Other text is unchanged."""
    for former in settings.FORMER_FILES_URLS:
        if url.startswith(former) and UPLOAD.match(url, len(former)):
            return f"{settings.FILES_URL}{url[len(former) :]}"
    return url


def repository(*parts: str) -> str:
    """Return a valid repository name: lowercase letters, digits and single hyphens between slashes."""
    return "/".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "x" for part in parts)


def environment(directory: Path) -> dict[str, str]:
    """Return the worker's environment (proxies, certificates) without secrets and variables of pip and uv."""
    variables = {name: value for name, value in os.environ.items() if not HIDDEN_VARIABLE.match(name)}
    return variables | {"TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
