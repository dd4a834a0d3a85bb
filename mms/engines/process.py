"""The embedded engine: a revision is one more program of the supervisord that runs the site.

Nothing is spawned here. Each program has two files in RUN_DIR/services: a section of supervisord's configuration,
included by the main one, so that services come back with the next start without us; and the plan that `launch.py`
carries out, which holds everything else and is read anew at every start.
"""

import json
import re
import shlex
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

from mms.engines import launch, sandbox
from mms.engines.base import Health, Observation, Refused, Revision
from mms.engines.logs import BACKUPS, MAX_BYTES, Logs
from mms.engines.probe import Answer, probe
from mms.engines.supervisor import ALIVE, GIVEN_UP, State, Supervisor
from mms.images.layout import Assembled, Missing, Store
from mms.locks import locked
from mms.runtimes import HOST_PLATFORM, HOST_PYTHON

SOCKET_PATH_MAX = 107  # bytes of sun_path in Linux, without the closing zero
STOP_SECONDS = 8  # between SIGTERM and SIGKILL
# A crash within this time of the start is followed by a pause: 1 s, 2 s, 3 s … up to a minute, then it is given up
# until somebody (mms.services.watch) applies the revision again. Generous, because an import can take that long.
QUICK_CRASH_SECONDS = 60
RETRIES = 60
INIT_FAILED = "exit status 3"  # mms.scoring.worker.INIT_FAILED, as supervisord's log has it
FILE_MAX_BYTES = 1024**3
OPEN_FILES = 4096
NAME = re.compile(r"mms-([0-9a-f]{32})-([1-9][0-9]{0,8})")


class ProcessEngine:
    """Runs revisions of images in `data`/oci through the supervisord behind `socket`. See `mms.engines.base.Engine`."""

    def __init__(
        self, data: Path, run: Path, socket: Path, *, hidden: Path, network: bool = False, memory: int = 0
    ) -> None:
        """`data`: MMS_DIR. `run`: RUN_DIR. `hidden`: what no service may see (DATA_DIR). `network`: whether services
        may use it. `memory`: bytes of address space of each process of a service; 0 sets no limit."""
        self.data, self.run, self.hidden, self.network, self.memory = data, run, hidden, network, memory
        self.supervisor = Supervisor(socket)
        self.logs_of = Logs(data / "services")
        self.store = Store(data)

    # --- the interface --------------------------------------------------------------------------------------------

    def check(self, image_digest: str) -> None:
        image = self._assembled(image_digest)
        if image.python != HOST_PYTHON:
            raise Refused(
                f"The image was made for Python {image.python}, and services of this server run with its own Python "
                f"{HOST_PYTHON}. Build it again for {HOST_PYTHON}."
            )
        if image.platform != HOST_PLATFORM:
            raise Refused(f"The image was made for {image.platform}; this machine is {HOST_PLATFORM}.")

    def apply(self, revision: Revision) -> str:
        name = program_name(revision.service_id, revision.number)
        address = self._address(name)
        state = self.supervisor.state(name)
        if state in ALIVE:
            return address
        self.check(revision.image_digest)
        with locked(self._lock()):
            self._write(name, revision)
            if state is None:
                self.supervisor.add(name)
            elif state in GIVEN_UP:
                self.supervisor.start(name)
        return address

    def remove(self, service_id: str, number: int) -> None:
        name = program_name(service_id, number)
        self._file(name, "conf").unlink(missing_ok=True)  # first: a restart in between does not bring it back
        self.supervisor.remove(name, STOP_SECONDS + 5)
        for kind in ("json", "starts"):
            self._file(name, kind).unlink(missing_ok=True)
        socket = self._socket(name)
        socket.unlink(missing_ok=True)
        with suppress(OSError):  # missing, or a driver left something in it
            socket.parent.rmdir()
        self.logs_of.trim({service for service, _ in self._configured()})

    def observe(self, service_id: str, number: int) -> Observation:
        name = program_name(service_id, number)
        answer = probe(self._address(name))
        restarts = self._restarts(name)
        if answer.status == 200:
            return Observation(Health.HEALTHY, _restarted(restarts), restarts, answer.in_flight)
        info = self.supervisor.info(name)
        if info is None or info["state"] == State.STOPPING:
            return Observation(Health.ABSENT, "It is not running.")
        if info["state"] in ALIVE:
            return self._not_healthy(name, info, answer, restarts)
        return self._crashed(name, restarts)

    def logs(self, service_id: str, number: int, after: int = 0, limit: int = 65536) -> tuple[str, int]:
        return self.logs_of.read(_canonical(service_id), number, after, limit)

    # --- beyond the interface -------------------------------------------------------------------------------------

    def running(self) -> set[tuple[str, int]]:
        """Every (service id, number) that supervisord knows or would start with the next start."""
        matches = (NAME.fullmatch(name) for name in self.supervisor.names())
        known = {(str(uuid.UUID(match[1])), int(match[2])) for match in matches if match}
        return known | self._configured()

    def last_lines(self, service_id: str, number: int, count: int) -> list[str]:
        """The newest lines of the revision's log."""
        return self.logs_of.last_lines(_canonical(service_id), number, count)

    def drop_stale(self) -> None:
        """Delete the programs whose files were written for other paths (a moved data folder, another Python) or are
        damaged. To be called before supervisord starts: it refuses to start at all with one of those."""
        for path in (self.run / "services").glob("*.conf"):
            match = NAME.fullmatch(path.stem)
            if match and path.read_text(errors="replace") == self._section(path.stem):
                self.logs_of.prepare(str(uuid.UUID(match[1])), int(match[2]))
            else:
                path.unlink()

    # --- details --------------------------------------------------------------------------------------------------

    def _assembled(self, image_digest: str) -> Assembled:
        try:
            return self.store.assemble(image_digest)
        except Missing as error:
            raise Refused(f"{error} Build the image again.") from None

    def _write(self, name: str, revision: Revision) -> None:
        """The plan and the section of `name`, each replaced as a whole: supervisord may read at any moment."""
        self.logs_of.prepare(_canonical(revision.service_id), revision.number)
        self._socket(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self._file(name, "json"), json.dumps(self._plan(name, revision)))
        _replace(self._file(name, "conf"), self._section(name))

    def _plan(self, name: str, revision: Revision) -> dict[str, Any]:
        image, socket = self._assembled(revision.image_digest), self._socket(name)
        program = [sandbox.python(), "-P", "-S", "-m", "scoring"]
        plan = {
            "starts": str(self._file(name, "starts")),
            "socket": str(socket),
            "limits": {"CORE": 0, "NOFILE": OPEN_FILES, "FSIZE": FILE_MAX_BYTES}
            | ({"AS": self.memory} if self.memory else {}),
            "init_timeout": revision.limits.init_timeout,
        }
        if sandbox.why_not(self.hidden):
            environment = _environment(revision, image.runtime, image.site, image.app_json, socket)
            return plan | {"argv": program, "environment": environment, "directory": str(image.app), "wrapped": False}
        inside = {"/app": image.app, "/opt/mms/runtime": image.runtime, "/opt/mms/app.json": image.app_json}
        site = Path("/opt/mms/site") if image.site else None
        if image.site:
            inside["/opt/mms/site"] = image.site
        environment = _environment(
            revision,
            Path("/opt/mms/runtime"),
            site,
            Path("/opt/mms/app.json"),
            Path(sandbox.SOCKET_FOLDER, socket.name),
        )
        view = sandbox.View(inside, socket.parent, "/app", hidden=self.hidden, network=self.network)
        argv = [*sandbox.command(view, environment), *program]
        return plan | {"argv": argv, "environment": {}, "directory": "/", "wrapped": True}

    def _section(self, name: str) -> str:
        service_id, number = _parsed(name)
        command = [sandbox.python(), "-I", "-S", launch.__file__, str(self._file(name, "json"))]
        options = {
            "command": shlex.join(command),
            "priority": "15",  # stopped after the site, before Redis
            "autorestart": "true",
            "startsecs": str(QUICK_CRASH_SECONDS),
            "startretries": str(RETRIES),
            "stopsignal": "TERM",
            "stopwaitsecs": str(STOP_SECONDS),
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(self.logs_of.path(service_id, number)),
            "stdout_logfile_maxbytes": str(MAX_BYTES),
            "stdout_logfile_backups": str(BACKUPS),
        }
        lines = [f"[program:{name}]", *(f"{key} = {_escaped(value)}" for key, value in options.items())]
        return "\n".join(lines) + "\n"

    def _not_healthy(self, name: str, info: dict[str, Any], answer: Answer, restarts: int) -> Observation:
        if info["now"] - info["start"] <= self._init_timeout(name):
            ending = f" again after {self.supervisor.last_exit(name) or 'a crash'}" if restarts else ""
            return Observation(Health.STARTING, f"It is starting{ending}. {_restarted(restarts)}".strip(), restarts)
        return Observation(Health.UNHEALTHY, f"It runs, but {answer.reason}. {_restarted(restarts)}".strip(), restarts)

    def _crashed(self, name: str, restarts: int) -> Observation:
        ending = self.supervisor.last_exit(name)
        detail = f"It ended with {ending or 'an error'}; its log may say why. {_restarted(restarts)}".strip()
        return Observation(Health.CRASHED, detail, restarts, hopeless=ending == INIT_FAILED)

    def _init_timeout(self, name: str) -> float:
        try:
            return float(json.loads(self._file(name, "json").read_text())["init_timeout"])
        except (OSError, ValueError, KeyError):
            return 0.0

    def _restarts(self, name: str) -> int:
        try:
            return int(self._file(name, "starts").read_text().split()[1]) - 1
        except (OSError, ValueError, IndexError):
            return 0

    def _configured(self) -> set[tuple[str, int]]:
        return {_parsed(path.stem) for path in (self.run / "services").glob("*.conf") if NAME.fullmatch(path.stem)}

    def _file(self, name: str, kind: str) -> Path:
        return self.run / "services" / f"{name}.{kind}"

    def _lock(self) -> Path:
        return self.run / "services" / ".lock"

    def _socket(self, name: str) -> Path:
        """Short, whatever the id: the kernel takes 107 bytes. A folder each, for the program may write in it."""
        service_id, number = _parsed(name)
        short = urlsafe_b64encode(uuid.UUID(service_id).bytes).decode().rstrip("=")
        path = self.run / "s" / f"{short}-{number}" / "s"
        if len(str(path).encode()) > SOCKET_PATH_MAX:
            raise Refused(f"DATA_DIR is too deep for a socket below it ({path}): choose a folder with a shorter path.")
        return path

    def _address(self, name: str) -> str:
        return f"unix:{self._socket(name)}"


def program_name(service_id: str, number: int) -> str:
    """supervisord's name for a revision. Raises Refused: an id that is no GUID never gets near a path."""
    if number < 1:
        raise Refused(f"{number} is no revision number.")
    return f"mms-{uuid.UUID(_canonical(service_id)).hex}-{number}"


def _canonical(service_id: str) -> str:
    try:
        return str(uuid.UUID(service_id))
    except ValueError:
        raise Refused(f"{service_id!r} is no service id.") from None


def _parsed(name: str) -> tuple[str, int]:
    match = NAME.fullmatch(name)
    if not match:
        raise Refused(f"{name!r} is no program of a service.")
    return str(uuid.UUID(match[1])), int(match[2])


def _environment(revision: Revision, runtime: Path, site: Path | None, app_json: Path, socket: Path) -> dict[str, str]:
    """All of the program's environment: nothing of the supervisor's own, which holds secrets, is passed on."""
    limits = revision.limits
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108 - private in the sandbox
        "LANG": "C.UTF-8",
        "PYTHONPATH": ":".join(map(str, filter(None, (runtime, site)))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the layers come with theirs, and are shared
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "MMS_APP": str(app_json),
        "MMS_LISTEN": f"unix:{socket}",
        "MMS_PROCESSES": str(limits.processes),
        "MMS_INIT_TIMEOUT": f"{limits.init_timeout:g}",
        "MMS_RUN_TIMEOUT": f"{limits.run_timeout:g}",
        "MMS_BODY_MAX_BYTES": str(limits.body_max_bytes),
        "MMS_QUEUE_LENGTH": str(limits.queue_length),
    }


def _escaped(value: str) -> str:
    """`value` as supervisord reads it. Raises Refused for what its format has no way to say."""
    if re.search(r"\s[;#]|[\r\n]", value):
        raise Refused(f"supervisord cannot be told of a path like this: {value!r}. Choose another DATA_DIR.")
    return value.replace("%", "%%")


def _restarted(restarts: int) -> str:
    return f"Restarted {restarts} time{'s' if restarts > 1 else ''}." if restarts else ""


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
