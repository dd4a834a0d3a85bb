"""Supervisor programs of revisions: names, files and configuration."""

import os
import re
import shlex
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mms.engines.base import EngineRefusedError, Revision
from mms.engines.process import launch, sandbox
from mms.engines.process.logs import BACKUPS, MAX_BYTES
from mms.system.supervisor_config import ConfigValueError, escape
from mms.system.trees import remove_tree

MAX_SOCKET_PATH_BYTES = 107  # sun_path in Linux, without the terminating zero
STOP_SECONDS = 8  # between SIGTERM and SIGKILL
# After a crash within this time of the start, supervisord waits 1 s, 2 s, 3 s and so on before it restarts the program.
# It stops after MAX_RETRIES, until mms.services.watch applies the revision again. Imports alone can take this long.
QUICK_CRASH_SECONDS = 60
MAX_RETRIES = 60
USER_NAME, HOME = "nobody", "/tmp"  # noqa: S108 - of services, as in a container; private in the sandbox
NAME = re.compile(r"mms-([0-9a-f]{32})-([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Program:
    """The program of revision `number` of service `service_id` (a canonical GUID), below the folder `run`."""

    run: Path
    service_id: str
    number: int

    @classmethod
    def for_revision(cls, run: Path, service_id: str, number: int) -> "Program":
        """Return the program of a revision.

        Raises EngineRefusedError for an invalid ID or number, which must not become part of a path or a configuration.
        """
        try:
            canonical = str(uuid.UUID(service_id))
        except ValueError:
            raise EngineRefusedError(f"{service_id[:100]!r} isn't a service ID.") from None
        program = cls(run, canonical, number)
        if not NAME.fullmatch(program.name):
            raise EngineRefusedError(f"{number} isn't a revision number.")
        return program

    @classmethod
    def from_name(cls, run: Path, name: str) -> "Program | None":
        """Return the program that supervisord calls `name`; None if it isn't a revision."""
        match = NAME.fullmatch(name)
        return cls(run, str(uuid.UUID(match[1])), int(match[2])) if match else None

    @classmethod
    def configured(cls, run: Path) -> "Iterator[Program]":
        """Return the programs that supervisord starts when it is restarted."""
        return (program for program in cls.with_files(run) if program.conf.exists())

    @classmethod
    def with_files(cls, run: Path) -> "Iterator[Program]":
        """Return all programs with files in this folder, including leftovers of killed workers."""
        names = {path.stem for path in (run / "services").glob("mms-*")}
        return (program for program in (cls.from_name(run, name) for name in sorted(names)) if program)

    @property
    def name(self) -> str:
        """The name of the program in supervisord."""
        return f"mms-{uuid.UUID(self.service_id).hex}-{self.number}"

    @property
    def conf(self) -> Path:
        """The file with the program's section of supervisord's configuration."""
        return self._file("conf")

    @property
    def plan(self) -> Path:
        """The file with the plan for `launch.py`."""
        return self._file("json")

    @property
    def starts(self) -> Path:
        """The file with the number of starts."""
        return self._file("starts")

    @property
    def stopped(self) -> Path:
        """The file with the reason why the guard stopped the program."""
        return self._file("stopped")

    @property
    def passwd(self) -> Path:
        """The /etc/passwd of the sandbox, with an entry for the program's user. Some packages look it up."""
        return self._file("passwd")

    @property
    def socket(self) -> Path:
        """The program's socket, with a short path. `launch.py` creates it; no program can write to its folder."""
        short = urlsafe_b64encode(uuid.UUID(self.service_id).bytes).decode().rstrip("=")
        path = self.run / "s" / f"{short}-{self.number}" / "s"
        if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
            raise EngineRefusedError(
                f"The path of DATA_DIR is too long for a socket below it ({path}). Choose a folder with a shorter path."
            )
        return path

    @property
    def address(self) -> str:
        """The address for the gateway."""
        return f"unix:{self.socket}"

    def _file(self, kind: str) -> Path:
        return self.run / "services" / f"{self.name}.{kind}"

    def write(self, plan: str, log: Path, user: sandbox.User) -> None:
        """Replace all files, each atomically, because supervisord may read them at any time."""
        for folder in (self.conf.parent, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self.passwd, f"{USER_NAME}:x:{user}::{HOME}:/usr/sbin/nologin\n")
        if os.geteuid() == 0:
            os.chown(self.passwd, user.uid, user.gid)  # the program reads it as its own user
        _replace(self.plan, plan)
        _replace(self.conf, self.section(log))

    def delete_files(self) -> None:
        """Delete everything but the log."""
        for path in (self.conf, self.plan, self.starts, self.stopped, self.passwd):
            remove_tree(path)
        remove_tree(self.socket.parent)

    def section(self, log: Path) -> str:
        """Return the program's section of supervisord's configuration. Raises EngineRefusedError."""
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
            "stdout_logfile": str(log).replace("%", "%%"),  # supervisord expands only this option twice
            "stdout_logfile_maxbytes": str(MAX_BYTES),
            "stdout_logfile_backups": str(BACKUPS),
        }
        return "\n".join([f"[program:{self.name}]", *(f"{key} = {_escaped(value)}" for key, value in options.items())])


def environment(revision: Revision, app: Path, runtime: Path, site: Path | None, app_json: Path) -> dict[str, str]:
    """Return the program's complete environment. The supervisor's own has secrets, so none of it is passed on."""
    limits = revision.limits
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": HOME,
        "USER": USER_NAME,
        "LOGNAME": USER_NAME,
        "LANG": "C.UTF-8",
        "PYTHONPATH": ":".join(map(str, filter(None, (runtime, site)))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # layers contain bytecode, and are shared
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "AZUREML_MODEL_DIR": str(app / "models"),  # drivers written for Azure Machine Learning expect it
        "MMS_APP": str(app_json),
        "MMS_LISTEN": f"fd:{launch.LISTENER}",
        "MMS_PROCESSES": str(limits.processes),
        "MMS_INIT_TIMEOUT": f"{limits.init_timeout:g}",
        "MMS_RUN_TIMEOUT": f"{limits.run_timeout:g}",
        "MMS_BODY_MAX_BYTES": str(limits.body_max_bytes),
        "MMS_QUEUE_LENGTH": str(limits.queue_length),
    }


def _escaped(value: str) -> str:
    """Return `value` as escaped for supervisord. Raises EngineRefusedError if its format can't express it."""
    try:
        return escape(value)
    except ConfigValueError as error:
        raise EngineRefusedError(f"{error} Choose another DATA_DIR.") from None


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)
