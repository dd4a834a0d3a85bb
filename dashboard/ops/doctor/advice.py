"""Advice that depends on how the programs run: under the supervisor, or each in its own container."""

import shlex
import socket
import sys
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dashboard.ops.supervisor import programs

START = f"Start the site: `{settings.START_COMMAND}`."


def supervised_programs() -> set[str]:
    """Return the names of the programs that the supervisor runs. Empty if each runs in its own container."""
    if not _config_path().exists() and "mms" not in settings.SERVE:
        return set()
    try:
        return {program.name for program in programs.programs()} | {"supervisord"}
    except ImproperlyConfigured:  # no Redis server was found
        return {"gateway", "web", "beat", "worker", "mms-worker", "redis", "supervisord"}


def supervisorctl(*arguments: str) -> str:
    """Return a supervisorctl command for this site, in backquotes."""
    command = [str(Path(sys.executable).with_name("supervisorctl")), "-c", str(_config_path()), *arguments]
    return f"`{shlex.join(command)}`"


def restart(name: str) -> str:
    """Return a sentence that explains how to restart the program."""
    if name not in supervised_programs():
        return f"Restart the container that runs `{settings.COMMAND} run {name}`."
    if not _is_supervisor_running():
        return START
    return f"Restart it: {supervisorctl('restart', programs.qualified_name(name))}."


def start(name: str) -> str:
    """Return a sentence that explains how to start a supervised program."""
    return f"Start it: {supervisorctl('start', programs.qualified_name(name))}."


def log_hint(name: str) -> str:
    """Return a sentence with the location of the program's log."""
    if name in supervised_programs():
        return f"Its log is {settings.LOG_DIR / name}.log."
    return "Its log is the log of its container."


def _config_path() -> Path:
    path: Path = settings.RUN_DIR / "supervisord.conf"
    return path


def _is_supervisor_running() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(settings.SUPERVISOR_SOCKET)
        except OSError:
            return False
    return True
