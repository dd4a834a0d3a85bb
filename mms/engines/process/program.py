"""A revision as a program of supervisord: its name, its files, and what is written into them."""

import re
import shlex
import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mms.engines.base import EngineRefusedError, Revision
from mms.engines.process import launch, sandbox
from mms.engines.process.logs import BACKUPS, MAX_BYTES

SOCKET_PATH_MAX = 107  # bytes of sun_path in Linux, without the closing zero
STOP_SECONDS = 8  # between SIGTERM and SIGKILL
# A crash within this time of the start is followed by a pause: 1 s, 2 s, 3 s … up to a minute, then it is given up
# until somebody (mms.services.watch) applies the revision again. Generous, because an import can take that long.
QUICK_CRASH_SECONDS = 60
MAX_RETRIES = 60
NAME = re.compile(r"mms-([0-9a-f]{32})-([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Program:
    """Revision `number` of service `service_id` (a GUID in its usual spelling) below the folder `run`."""

    run: Path
    service_id: str
    number: int

    @classmethod
    def for_revision(cls, run: Path, service_id: str, number: int) -> "Program":
        """Raises EngineRefusedError: an id that is no GUID never gets near a path or a configuration."""
        try:
            canonical = str(uuid.UUID(service_id))
        except ValueError:
            raise EngineRefusedError(f"{service_id[:100]!r} is no service id.") from None
        program = cls(run, canonical, number)
        if not NAME.fullmatch(program.name):
            raise EngineRefusedError(f"{number} is no revision number.")
        return program

    @classmethod
    def from_name(cls, run: Path, name: str) -> "Program | None":
        """The program with supervisord's name `name`; None where that is not one of ours."""
        match = NAME.fullmatch(name)
        return cls(run, str(uuid.UUID(match[1])), int(match[2])) if match else None

    @classmethod
    def configured(cls, run: Path) -> "Iterator[Program]":
        """Those that supervisord would start with its next start."""
        return (program for program in cls.with_files(run) if program.conf.exists())

    @classmethod
    def with_files(cls, run: Path) -> "Iterator[Program]":
        """Those that have a file here, if only what a killed worker did not come to delete."""
        names = {path.stem for path in (run / "services").glob("mms-*")}
        return (program for program in (cls.from_name(run, name) for name in sorted(names)) if program)

    @property
    def name(self) -> str:
        return f"mms-{uuid.UUID(self.service_id).hex}-{self.number}"

    @property
    def conf(self) -> Path:
        """The section of supervisord's configuration."""
        return self._file("conf")

    @property
    def plan(self) -> Path:
        """What `launch.py` is to do."""
        return self._file("json")

    @property
    def starts(self) -> Path:
        """How often it was started."""
        return self._file("starts")

    @property
    def socket(self) -> Path:
        """Short, whatever the id, for the kernel's limit. A folder each, because the program may write into it."""
        short = urlsafe_b64encode(uuid.UUID(self.service_id).bytes).decode().rstrip("=")
        path = self.run / "s" / f"{short}-{self.number}" / "s"
        if len(str(path).encode()) > SOCKET_PATH_MAX:
            raise EngineRefusedError(
                f"DATA_DIR is too deep for a socket below it ({path}): choose a folder with a shorter path."
            )
        return path

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    def _file(self, kind: str) -> Path:
        return self.run / "services" / f"{self.name}.{kind}"

    def write(self, plan: str, log: Path) -> None:
        """Replace plan and configuration, each as a whole: supervisord may read at any moment."""
        for folder in (self.conf.parent, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self.plan, plan)
        _replace(self.conf, self.section(log))

    def erase(self) -> None:
        """Delete everything but the log."""
        for path in (self.conf, self.plan, self.starts):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.socket.parent, ignore_errors=True)  # with whatever the driver left in it

    def section(self, log: Path) -> str:
        """Its part of supervisord's configuration. Raises EngineRefusedError."""
        options = {
            "command": shlex.join([sandbox.python(), "-I", "-S", launch.__file__, str(self.plan)]),
            "priority": "15",  # stopped after the site, before Redis
            "autorestart": "true",
            "startsecs": str(QUICK_CRASH_SECONDS),
            "startretries": str(MAX_RETRIES),
            "stopsignal": "TERM",
            "stopwaitsecs": str(STOP_SECONDS),
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(log).replace("%", "%%"),  # the one option that supervisord expands twice
            "stdout_logfile_maxbytes": str(MAX_BYTES),
            "stdout_logfile_backups": str(BACKUPS),
        }
        return "\n".join([f"[program:{self.name}]", *(f"{key} = {_escaped(value)}" for key, value in options.items())])


def environment(revision: Revision, runtime: Path, site: Path | None, app_json: Path, socket: Path) -> dict[str, str]:
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
    """`value` as supervisord reads it. Raises EngineRefusedError for what its format has no way to say."""
    if re.search(r"\s[;#]|[\r\n]", value):
        raise EngineRefusedError(f"supervisord cannot be told of a path like this: {value!r}. Choose another DATA_DIR.")
    return value.replace("%", "%%")


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
