"""The embedded engine: a revision is one more program of the supervisord that runs the site.

Nothing is spawned here. Each program has two files in RUN_DIR/services: a section of supervisord's configuration,
included by the main one, so that services come back with the next start without us; and the plan that `launch.py`
carries out, which holds everything else and is read anew at every start.
"""

import json
import re
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

from mms.engines.base import EngineRefusedError, Health, Observation, Revision
from mms.engines.probe import Answer, probe
from mms.engines.process import sandbox
from mms.engines.process.logs import Logs
from mms.engines.process.program import STOP_SECONDS, Program, environment
from mms.engines.process.supervisor import ALIVE, GIVEN_UP, State, Supervisor
from mms.images.runtimes import HOST_PLATFORM, HOST_PYTHON
from mms.images.store.layout import APP_JSON_PATH, RUNTIME_PATH, SITE_PATH, AssembledImage, NotInStoreError, Store
from mms.system.locks import locked

FILE_MAX_BYTES = 1024**3
OPEN_FILES = 4096
INIT_FAILED = "exit status 3"  # mms.scoring.worker.INIT_FAILED, as supervisord's log has it


class ProcessEngine:
    """Runs revisions of images in `data`/oci through the supervisord behind `socket`. See `mms.engines.base.Engine`."""

    def __init__(
        self, data: Path, run: Path, socket: Path, *, hidden: Path, network: bool = False, memory: int = 0
    ) -> None:
        """`data`: MMS_DIR. `run`: RUN_DIR. `hidden`: what no service may see (DATA_DIR). `network`: whether services
        may use it. `memory`: bytes of address space of each process of a service; 0 sets no limit."""
        self.run, self.hidden, self.network, self.memory = run, hidden, network, memory
        self.supervisor = Supervisor(socket)
        self.log_files = Logs(data / "services")
        self.store = Store(data)

    # --- the interface --------------------------------------------------------------------------------------------

    def check(self, image_digest: str) -> None:
        self._checked(image_digest)

    def apply(self, revision: Revision) -> str:
        program = self._program(revision.service_id, revision.number)
        state = self.supervisor.state(program.name)
        if state in ALIVE:
            return program.address
        plan = self._plan(program, revision, self._checked(revision.image_digest))
        log = self.log_files.prepare(program.service_id, program.number)
        with locked(self.run / "services" / ".lock"):  # reading the configuration and adding from it are two calls
            program.write(json.dumps(plan), log)
            if state is None:
                self.supervisor.add(program.name)
            elif state in GIVEN_UP:
                self.supervisor.start(program.name)
        return program.address

    def remove(self, service_id: str, number: int) -> None:
        program = self._program(service_id, number)
        program.conf.unlink(missing_ok=True)  # first: a restart in between does not bring it back
        self.supervisor.remove(program.name, STOP_SECONDS + 5)
        program.erase()
        self.log_files.trim({other.service_id for other in Program.configured(self.run)})

    def observe(self, service_id: str, number: int) -> Observation:
        program = self._program(service_id, number)
        answer = probe(program.address)
        restarts = _restarts(program)
        if answer.status == 200:
            return Observation(Health.HEALTHY, _restarted(restarts), restarts, answer.in_flight)
        info = self.supervisor.info(program.name)
        if info is None or info["state"] == State.STOPPING:
            return Observation(Health.ABSENT, "It is not running.")
        if info["state"] in ALIVE:
            return self._not_healthy(program, info, answer, restarts)
        return self._crashed(program, restarts)

    def logs(self, service_id: str, number: int, after: int = 0, limit: int = 65536) -> tuple[str, int]:
        program = self._program(service_id, number)
        return self.log_files.read(program.service_id, program.number, after, limit)

    # --- beyond the interface -------------------------------------------------------------------------------------

    def address(self, service_id: str, number: int) -> str:
        """Where the revision is found, running or not."""
        return self._program(service_id, number).address

    def running(self) -> set[tuple[str, int]]:
        """Every (service id, number) that supervisord knows, or of which there is any file."""
        known = (Program.from_name(self.run, name) for name in self.supervisor.names())
        programs = [*filter(None, known), *Program.with_files(self.run)]
        return {(program.service_id, program.number) for program in programs}

    def last_lines(self, service_id: str, number: int, count: int) -> list[str]:
        """The newest lines of the revision's log."""
        program = self._program(service_id, number)
        return self.log_files.last_lines(program.service_id, program.number, count)

    def drop_stale(self) -> None:
        """Delete the programs whose files were written for other paths (a moved data folder, another Python), with
        or without a sandbox unlike now, are damaged or lead to an image that must be unpacked again; and the files
        and sockets that killed processes left. To be called before supervisord starts: it refuses to start at all
        with one of those, and a service must not run with less around it than people are told."""
        for path in (self.run / "services").glob("*.conf"):
            program = Program.from_name(self.run, path.stem)
            if program is None or not self._stands(program):
                path.unlink()
        for program in Program.with_files(self.run):
            if not program.conf.exists():
                program.erase()
        kept = {program.socket.parent for program in Program.configured(self.run)}
        for folder in set((self.run / "s").glob("*")) - kept:
            shutil.rmtree(folder, ignore_errors=True)

    def _stands(self, program: Program) -> bool:
        log = self.log_files.prepare(program.service_id, program.number)
        try:
            plan = json.loads(program.plan.read_text())
        except (OSError, ValueError):
            return False
        fits = program.conf.read_text(errors="replace") == program.section(log)
        there = all(Path(path).exists() for path in plan.get("image", [""]))
        return fits and there and plan.get("surroundings") == self._surroundings()

    # --- starting -------------------------------------------------------------------------------------------------

    def _program(self, service_id: str, number: int) -> Program:
        return Program.for_revision(self.run, service_id, number)

    def _checked(self, image_digest: str) -> AssembledImage:
        """The image as folders. Raises EngineRefusedError where it cannot run here."""
        try:
            image = self.store.assemble(image_digest)
        except NotInStoreError as error:
            raise EngineRefusedError(f"{error} Build the image again.") from None
        if image.python != HOST_PYTHON:
            raise EngineRefusedError(
                f"The image was made for Python {image.python}, and services of this server run with its own Python "
                f"{HOST_PYTHON}. Build it again for {HOST_PYTHON}."
            )
        if image.platform != HOST_PLATFORM:
            raise EngineRefusedError(f"The image was made for {image.platform}; this machine is {HOST_PLATFORM}.")
        return image

    def _plan(self, program: Program, revision: Revision, image: AssembledImage) -> dict[str, Any]:
        """What `launch.py` is to do: see there."""
        limits = {"CORE": 0, "NOFILE": OPEN_FILES, "FSIZE": FILE_MAX_BYTES}
        if self.memory:
            limits["AS"] = self.memory
        user = sandbox.service_user(program.service_id)
        return {
            "user": [user.uid, user.gid] if user else None,
            "starts": str(program.starts),
            "socket": str(program.socket),
            "limits": limits,
            "init_timeout": revision.limits.init_timeout,
            "surroundings": self._surroundings(),
            "image": [str(path) for path in (image.app, image.runtime, image.site, image.app_json) if path],
            **(self._plain if self._no_sandbox() else self._boxed)(program, revision, image, user),
        }

    def _surroundings(self) -> dict[str, Any]:
        """What a plan owes to this machine and to settings, not to the revision."""
        user = sandbox.service_user(str(uuid.UUID(int=0)))
        return {
            "sandbox": sandbox.rules(self.hidden),
            "user": str(user or "-"),
            "network": self.network,
            "memory": self.memory,
        }

    def _no_sandbox(self) -> str:
        return sandbox.unavailable_reason(self.hidden)

    def _plain(
        self, program: Program, revision: Revision, image: AssembledImage, user: sandbox.User | None
    ) -> dict[str, Any]:
        if reason := sandbox.denial_reason(self.hidden):
            raise EngineRefusedError(reason)
        values = environment(revision, image.runtime, image.site, image.app_json, program.socket)
        paths = filter(None, (program.socket.parent, image.app, image.site, image.runtime, image.app_json))
        return {
            "argv": [*sandbox.unwrapped(user), *_scoring(sandbox.python_for(user))],
            "environment": values,
            "directory": str(image.app),
            "wrapped": False,
            "passage": {"top": str(self.hidden), "to": [str(path) for path in paths]} if user else None,
        }

    def _boxed(
        self, program: Program, revision: Revision, image: AssembledImage, user: sandbox.User | None
    ) -> dict[str, Any]:
        runtime, site, app_json = (Path("/", path) for path in (RUNTIME_PATH, SITE_PATH, APP_JSON_PATH))
        layers = {"/app": image.app, str(runtime): image.runtime, str(app_json): image.app_json}
        if image.site:
            layers[str(site)] = image.site
        socket = Path(sandbox.SOCKET_FOLDER, program.socket.name)
        values = environment(revision, runtime, site if image.site else None, app_json, socket)
        view = sandbox.View(layers, program.socket.parent, "/app", self.hidden, self.network)
        return {
            "argv": [*sandbox.command(view, values, user), *_scoring(sandbox.python())],
            "environment": {},
            "directory": "/",
            "wrapped": True,
        }

    # --- observing ------------------------------------------------------------------------------------------------

    def _not_healthy(self, program: Program, info: dict[str, Any], answer: Answer, restarts: int) -> Observation:
        """The process runs. It is starting as long as it says so, or says nothing within the time for that."""
        young = info["now"] - info["start"] <= _init_timeout(program)
        if young and (answer.starting or not answer.status):
            ending = f" again after {_in_words(self.supervisor.last_exit(program.name))}" if restarts else ""
            return Observation(Health.STARTING, f"It is starting{ending}. {_restarted(restarts)}".strip(), restarts)
        return Observation(Health.UNHEALTHY, f"It runs, but {answer.reason}. {_restarted(restarts)}".strip(), restarts)

    def _crashed(self, program: Program, restarts: int) -> Observation:
        ending = self.supervisor.last_exit(program.name)
        detail = f"It ended with {_in_words(ending)}; its log may say why. {_restarted(restarts)}".strip()
        return Observation(Health.CRASHED, detail, restarts, is_unrecoverable=ending == INIT_FAILED)


def _scoring(interpreter: str) -> list[str]:
    """The program of every image, with the host's Python but none of the packages installed for that."""
    return [interpreter, "-P", "-S", "-m", "scoring"]


def _in_words(ending: str) -> str:
    """How a program ended, for people. A sandbox passes a signal on as an exit status above 128."""
    status = re.fullmatch(r"exit status (\d+)", ending)
    number = int(status[1]) - 128 if status else 0
    if number in set(signal.Signals):
        ending = f"terminated by {signal.Signals(number).name}"
    if ending == "terminated by SIGKILL":
        return "SIGKILL (somebody killed it, or the machine ran out of memory)"
    return ending.removeprefix("terminated by ") or "an error"


def _init_timeout(program: Program) -> float:
    try:
        return float(json.loads(program.plan.read_text())["init_timeout"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _restarts(program: Program) -> int:
    try:
        return int(program.starts.read_text().split()[1]) - 1
    except (OSError, ValueError, IndexError):
        return 0


def _restarted(restarts: int) -> str:
    return f"Restarted {restarts} time{'s' if restarts > 1 else ''}." if restarts else ""
