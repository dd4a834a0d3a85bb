"""The embedded engine: each revision is a program of the supervisord that runs the site.

The engine itself starts no process. Each program has two files in RUN_DIR/services: a section of supervisord's
configuration, which the main one includes, so that services start again with the site; and the plan for `launch.py`,
which has everything else and is read at each start.
"""

import json
import logging
import os
import re
import signal
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mms.engines.base import EngineRefusedError, Health, Observation, Revision
from mms.engines.probe import ProbeResult, probe
from mms.engines.process import launch, sandbox
from mms.engines.process.guard import Guard, Resources, size, stop_reason
from mms.engines.process.logs import Logs
from mms.engines.process.program import STOP_SECONDS, Program, environment
from mms.engines.process.supervisor import ALIVE, GIVEN_UP, State, Supervisor
from mms.images.runtimes import HOST_PLATFORM, HOST_PYTHON
from mms.images.store.layout import (
    APP_JSON_PATH,
    APP_PATH,
    RUNTIME_PATH,
    SITE_PATH,
    AssembledImage,
    NotInStoreError,
    Store,
)
from mms.system.locks import locked
from mms.system.trees import remove_tree

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1024**3
MAX_OPEN_FILES = 4096
# Runs the scoring program of images built by earlier releases as if it created its socket. It doesn't report its open
# requests if it gets its socket as a descriptor, so that an update would wait for them longer than necessary.
EARLIER_SCORING = (
    "import os, runpy, socket; from scoring import server; "
    "number = int(os.environ['MMS_LISTEN'].partition(':')[2]); os.environ['MMS_LISTEN'] = 'unix:inherited'; "
    "server._open_unix = lambda path: socket.socket(fileno=number); "
    "runpy.run_module('scoring', run_name='__main__')"
)
MEMORY_LINES = 3  # at the end of the log, to search for memory errors
OUT_OF_MEMORY = re.compile(r"\bMemoryError\b|std::bad_alloc|can(?:not|'t) allocate memory", re.IGNORECASE)
INIT_FAILED = "exit status 3"  # mms.scoring.settings.INIT_FAILED, as it appears in supervisord's log


class ProcessEngine:
    """Runs revisions of images in `data`/oci through the supervisord behind `socket`. See `mms.engines.base.Engine`."""

    def __init__(
        self,
        data: Path,
        run: Path,
        socket: Path,
        *,
        hidden: Path,
        network: bool = False,
        resources: Resources | None = None,
    ) -> None:
        """Create the engine.

        `data` is MMS_DIR, `run` is RUN_DIR, and `hidden` is the folder that services must not see (DATA_DIR). `network`
        allows network access. `resources` limits what each service may use.
        """
        self.run, self.hidden, self.network, self.resources = run, hidden, network, resources or Resources()
        self.supervisor = Supervisor(socket)
        self.log_files = Logs(data / "services")
        self.guard = Guard(run, self.log_files, self.resources)
        self.store = Store(data)

    # --- the interface --------------------------------------------------------------------------------------------

    def check(self, image_digest: str) -> None:
        """See `Engine.check`."""
        self._load_image(image_digest)

    def apply(self, revision: Revision) -> str:
        """See `Engine.apply`."""
        program = self._program(revision.service_id, revision.number)
        state = self.supervisor.state(program.name)
        if state in ALIVE:
            return program.address
        plan = self._plan(program, revision, self._load_image(revision.image_digest))
        log = self.log_files.prepare(program.service_id, program.number)
        with locked(self.run / "services" / ".lock"):  # `add` reads the configuration and adds a program in two calls
            user = sandbox.service_user(program.service_id) or sandbox.User(os.geteuid(), os.getegid())
            program.write(json.dumps(plan), log, user)
            if state is None:
                self.supervisor.add(program.name)
            elif state in GIVEN_UP:
                self.supervisor.start(program.name)
        return program.address

    def remove(self, service_id: str, number: int) -> None:
        """See `Engine.remove`."""
        program = self._program(service_id, number)
        program.conf.unlink(missing_ok=True)  # first, so that a restart in between doesn't start it again
        self.supervisor.remove(program.name, STOP_SECONDS + 5)
        program.delete_files()
        self.log_files.trim({other.service_id for other in Program.configured(self.run)})

    def observe(self, service_id: str, number: int) -> Observation:
        """See `Engine.observe`."""
        program = self._program(service_id, number)
        answer = probe(program.address)
        restarts = _restarts(program)
        if answer.status == 200:
            detail = f"{stop_reason(program, restarts)} {_restarted(restarts)}".strip()
            return Observation(Health.HEALTHY, detail, restarts, answer.in_flight)
        info = self.supervisor.info(program.name)
        if info is None or info["state"] == State.STOPPING:
            return Observation(Health.ABSENT, "It is not running.")
        if info["state"] in ALIVE:
            return self._not_healthy(program, info, answer, restarts)
        return self._crashed(program, restarts)

    def logs(self, service_id: str, number: int, after: int = 0, limit: int = 65536) -> tuple[str, int]:
        """See `Engine.logs`."""
        program = self._program(service_id, number)
        return self.log_files.read(program.service_id, program.number, after, limit)

    # --- beyond the interface -------------------------------------------------------------------------------------

    def address(self, service_id: str, number: int) -> str:
        """Return the revision's address, whether or not it is running."""
        return self._program(service_id, number).address

    def running(self) -> set[tuple[str, int]]:
        """Return all pairs (service ID, number) that supervisord knows or that have any file."""
        known = (Program.from_name(self.run, name) for name in self.supervisor.names())
        programs = [*filter(None, known), *Program.with_files(self.run)]
        return {(program.service_id, program.number) for program in programs}

    def last_lines(self, service_id: str, number: int, count: int) -> list[str]:
        """Return the newest lines of the revision's log."""
        program = self._program(service_id, number)
        return self.log_files.last_lines(program.service_id, program.number, count)

    def drop_stale(self) -> None:
        """Delete programs whose files are outdated, and files and sockets that killed processes left.

        Files are outdated if paths, the Python or the sandbox have changed, if they are damaged, or if the unpacked
        image is missing. Call this before supervisord starts: it fails to start with an invalid file, and a service
        must not run with less isolation than the site reports. `watch` adds the programs again.
        """
        for path in (self.run / "services").glob("*.conf"):
            program = Program.from_name(self.run, path.stem)
            if program is None or not self._is_current(program):
                remove_tree(path)
        for program in Program.with_files(self.run):
            if not program.conf.exists():
                program.delete_files()
        configured = {program.socket.parent for program in Program.configured(self.run)}
        for folder in set((self.run / "s").glob("*")) - configured:
            remove_tree(folder)

    def _is_current(self, program: Program) -> bool:
        try:
            log = self.log_files.prepare(program.service_id, program.number)
            plan = json.loads(program.plan.read_text())
            has_same_section = program.conf.read_text(errors="replace") == program.section(log)
            has_image = all(Path(path).exists() for path in plan.get("image", [""]))
            return has_same_section and has_image and plan.get("surroundings") == self._surroundings()
        except Exception:  # a start of the site never fails because of one service
            logger.exception("Couldn't check the files of %s, so they are deleted.", program.name)
            return False

    # --- starting -------------------------------------------------------------------------------------------------

    def _program(self, service_id: str, number: int) -> Program:
        return Program.for_revision(self.run, service_id, number)

    def _load_image(self, image_digest: str) -> AssembledImage:
        """Return the image as folders. Raises EngineRefusedError if it can't run here."""
        try:
            image = self.store.assemble(image_digest)
        except NotInStoreError as error:
            raise EngineRefusedError(f"{error} Build the image again.") from None
        if image.python != HOST_PYTHON:
            raise EngineRefusedError(
                f"The image was built for Python {image.python}, but services of this server run with Python "
                f"{HOST_PYTHON}. Build it again for {HOST_PYTHON}."
            )
        if image.platform != HOST_PLATFORM:
            raise EngineRefusedError(f"The image was built for {image.platform}, but this machine is {HOST_PLATFORM}.")
        return image

    def _plan(self, program: Program, revision: Revision, image: AssembledImage) -> dict[str, Any]:
        """Return the plan for `launch.py`, which documents it."""
        limits = {"CORE": 0, "NOFILE": MAX_OPEN_FILES, "FSIZE": MAX_FILE_BYTES}
        if self.resources.memory:
            limits["DATA"] = self.resources.data
        user = sandbox.service_user(program.service_id)
        return {
            "user": [user.uid, user.gid] if user else None,
            "starts": str(program.starts),
            "socket": str(program.socket),
            "listener": launch.LISTENER,
            "limits": limits,
            "cpus": self.resources.cpu_count(revision.limits.processes),
            "init_timeout": revision.limits.init_timeout,
            "surroundings": self._surroundings(),
            "image": [str(path) for path in (image.app, image.runtime, image.site, image.app_json) if path],
            **(self._unsandboxed if sandbox.unavailable_reason(self.hidden) else self._sandboxed)(
                revision, image, user
            ),
        }

    def _surroundings(self) -> dict[str, Any]:
        """Return the part of a plan that depends on this machine and its settings, not on the revision."""
        user = sandbox.service_user(str(uuid.UUID(int=0)))
        return {
            "sandbox": sandbox.rules(self.hidden),
            "user": str(user or "-"),
            "network": self.network,
            "resources": asdict(self.resources),
        }

    def _unsandboxed(self, revision: Revision, image: AssembledImage, user: sandbox.User | None) -> dict[str, Any]:
        if reason := sandbox.denial_reason(self.hidden):
            raise EngineRefusedError(reason)
        values = environment(revision, image.app, image.runtime, image.site, image.app_json)
        paths = filter(None, (image.app, image.site, image.runtime, image.app_json))
        return {
            "argv": [
                *sandbox.unwrapped(user, self.resources.tasks),
                *_scoring_command(sandbox.python_for(user), image),
            ],
            "environment": values,
            "directory": str(image.app),
            "wrapped": False,
            "passage": {"top": str(self.hidden), "to": [str(path) for path in paths]} if user else None,
        }

    def _sandboxed(self, revision: Revision, image: AssembledImage, user: sandbox.User | None) -> dict[str, Any]:
        runtime, site, app_json = (Path("/", path) for path in (RUNTIME_PATH, SITE_PATH, APP_JSON_PATH))
        layers = {f"/{APP_PATH}": image.app, str(runtime): image.runtime, str(app_json): image.app_json}
        if image.site:
            layers[str(site)] = image.site
        layers["/etc/passwd"] = self._program(revision.service_id, revision.number).passwd
        values = environment(revision, Path("/", APP_PATH), runtime, site if image.site else None, app_json)
        resources = self.resources
        view = sandbox.View(layers, "/app", self.hidden, self.network, resources.temporary, resources.tasks)
        return {
            "argv": [*sandbox.command(view, values, user), *_scoring_command(sandbox.python(), image)],
            "environment": {},
            "directory": "/",
            "wrapped": True,
        }

    # --- observing ------------------------------------------------------------------------------------------------

    def _not_healthy(self, program: Program, info: dict[str, Any], answer: ProbeResult, restarts: int) -> Observation:
        """Return the observation of a running process that isn't healthy.

        It counts as starting during the time limit of init() if it reports so, or doesn't respond.
        """
        may_be_starting = info["now"] - info["start"] <= _init_timeout(program)
        if may_be_starting and (answer.is_starting or not answer.status):
            # The launcher may not have counted this start yet.
            stopped = stop_reason(program, restarts) or stop_reason(program, restarts + 1)
            cause = f" again after {_describe_exit(self.supervisor.last_exit(program.name))}" if restarts else ""
            detail = f"{stopped} It is starting again." if stopped else f"It is starting{cause}."
            return Observation(Health.STARTING, f"{detail} {_restarted(restarts)}".strip(), restarts)
        return Observation(
            Health.UNHEALTHY, f"It is running, but {answer.reason}. {_restarted(restarts)}".strip(), restarts
        )

    def _crashed(self, program: Program, restarts: int) -> Observation:
        if stopped := stop_reason(program, restarts + 1):
            return Observation(
                Health.CRASHED,
                f"{stopped} {_restarted(restarts)}".strip(),
                restarts,
                is_unrecoverable=True,
                is_out_of_memory=True,
            )
        ending = self.supervisor.last_exit(program.name)
        lines = self.last_lines(program.service_id, program.number, MEMORY_LINES)
        if is_out_of_memory := any(map(OUT_OF_MEMORY.search, lines)):
            limit = f"{size(self.resources.memory)} of memory, the limit of a service"
            reason = f"It exited because it needed more than {limit}."
        else:
            reason = f"It ended with {_describe_exit(ending)}; check its log for the cause."
        detail = f"{reason} {_restarted(restarts)}".strip()
        return Observation(
            Health.CRASHED,
            detail,
            restarts,
            is_unrecoverable=ending == INIT_FAILED,
            is_out_of_memory=is_out_of_memory,
        )


def _scoring_command(interpreter: str, image: AssembledImage) -> list[str]:
    """Return the command of each image's program: the host's Python, without the packages installed for it."""
    is_earlier = b'listen.startswith("fd:")' in (image.runtime / "scoring" / "server.py").read_bytes()
    return [interpreter, "-P", "-S", *(["-c", EARLIER_SCORING] if is_earlier else ["-m", "scoring"])]


def _describe_exit(description: str) -> str:
    """Return how a program ended, for users. A sandbox reports a signal as an exit status above 128."""
    status = re.fullmatch(r"exit status (\d+)", description)
    number = int(status[1]) - 128 if status else 0
    if number in set(signal.Signals):
        description = f"terminated by {signal.Signals(number).name}"
    if description == "terminated by SIGKILL":
        return "SIGKILL (it was killed, or the machine ran out of memory)"
    return description.removeprefix("terminated by ") or "an error"


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
