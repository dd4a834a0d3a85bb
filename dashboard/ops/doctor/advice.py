"""What the reader can type to mend something: it depends on who runs the programs here, and whether they run at all."""

import socket
import sys
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dashboard.ops.supervisor import programs

START = f"Start the site: `{settings.START_COMMAND}`."


def supervised() -> set[str]:
    """The programs that the supervisor of this DATA_DIR runs; none where each has a container of its own."""
    if not _config().exists() and "mms" not in settings.SERVE:
        return set()
    try:
        return {program.name for program in programs.programs()} | {"supervisord"}
    except ImproperlyConfigured:  # no Redis server could be found
        return {"web", "beat", "worker", "mms-worker", "redis", "supervisord"}


def supervisorctl(*words: str) -> str:
    """A command line for the supervisor of this site."""
    return f"`{Path(sys.executable).with_name('supervisorctl')} -c {_config()} {' '.join(words)}`"


def restart(name: str) -> str:
    """How a program is started anew, as a sentence."""
    if name not in supervised():
        return f"Restart the container that runs `{settings.COMMAND} run {name}`."
    if not _supervisor_lives():
        return START
    return f"Restart it: {supervisorctl('restart', _full(name))}."


def start(name: str) -> str:
    """How a program is started that the supervisor knows, as a sentence."""
    return f"Start it: {supervisorctl('start', _full(name))}."


def look(name: str) -> str:
    """Where a program says what ails it, as a sentence."""
    return f"Its log is {settings.LOG_DIR / name}.log." if name in supervised() else "Its log is the container’s."


def _full(name: str) -> str:
    return name if name == "redis" else f"site:{name}"


def _config() -> Path:
    path: Path = settings.RUN_DIR / "supervisord.conf"
    return path


def _supervisor_lives() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(settings.SUPERVISOR_SOCKET)
        except OSError:
            return False
    return True
