"""Listening sockets and processes: several scoring processes on one socket, and the driver's own child processes.

With MMS_PROCESSES above 1, the parent opens the socket but handles no requests. Each child loads the model for itself.
The first child accepts connections immediately, so that requests are answered with *Starting*; the others, and each
replacement, join once `init()` has returned. The health check succeeds once all of them are ready.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from .errors import log
from .settings import INIT_FAILED, Settings, SetupError

BACKLOG = 1024
PAUSE_SECONDS = 1.0  # before a child that died is replaced
LOOK_SECONDS = 0.1


# --- sockets ----------------------------------------------------------------------------------------------------------


def open_socket(listen: str) -> socket.socket:
    """Return the listening socket for unix:/path, tcp:host:port or fd:number. Raises SetupError."""
    kind, _, place = listen.partition(":")
    try:
        if kind == "fd":
            listening = socket.socket(fileno=int(place))
            listening.set_inheritable(False)  # programs that the driver starts must not keep it open
            return listening
        if kind == "unix":
            return _open_unix(Path(place))
        if kind == "tcp":
            host, _, port = place.rpartition(":")
            return socket.create_server((host, int(port)), backlog=BACKLOG, family=_family(host))
    except (OSError, ValueError, OverflowError) as reason:
        raise SetupError(f"MMS_LISTEN={listen}: {reason}") from None
    raise SetupError(f"MMS_LISTEN must be unix:/path or tcp:host:port, not {listen!r}.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _open_unix(path: Path) -> socket.socket:
    """Bind `path`, readable by its owner only. Replaces a socket left by a dead process."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    listening.listen(BACKLOG)
    return listening


# --- children of the driver -------------------------------------------------------------------------------------------

_is_fork = False
_forking = threading.local()
_HANDLED = (signal.SIGTERM, signal.SIGINT)


def detach_forks(listening: socket.socket) -> None:
    """Make each process that the driver forks (os.fork, multiprocessing) independent of the server.

    Otherwise a signal to the child would reach the server through the event loop's wake-up descriptor, and the child
    would keep the server's connections open.
    """
    own = listening.getsockname()
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=lambda: _detach(own))


def _hold_signals() -> None:
    """Block signals in this thread: one that arrives before `_detach` would reach the server."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _detach(own: object) -> None:
    global _is_fork
    _is_fork = True
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _release_signals()
    null = os.open(os.devnull, os.O_RDWR)
    for number in _open_descriptors():
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode) and _is_served(number, own):
                # Not closed: the number would be reused while objects in this process still refer to it.
                os.dup2(null, number, inheritable=False)
    os.close(null)


def _open_descriptors() -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path("/dev/fd").iterdir()]
    return list(range(3, 1024))


def _is_served(number: int, own: object) -> bool:
    """Return True for the listening socket and accepted connections: they have its address, or for TCP its port."""
    with socket.socket(fileno=os.dup(number)) as copy:
        name = copy.getsockname()
    if isinstance(own, tuple):
        return isinstance(name, tuple) and name[1] == own[1]
    return bool(own) and name == own


def leave_if_forked(status: int) -> None:
    """End this process if it is a copy made by os.fork() in which the driver has returned to the server's code."""
    if _is_fork:
        with suppress(BaseException):
            sys.stdout.flush()
        os._exit(status)


# --- several scoring processes ----------------------------------------------------------------------------------------


class Parent:
    """Starts the scoring processes, and replaces those that die."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings, self._listening = settings, listening
        self._children: list[subprocess.Popen[bytes]] = []
        self._is_stopping = False
        # Children write their process ID to the first pipe when they are ready. The second is closed when all are.
        self._reports, self._report = os.pipe()
        self._all_ready, self._hold = os.pipe()
        os.set_blocking(self._reports, False)
        self._unread = b""
        self._ready: set[int] = set()

    def run(self) -> int:
        """Keep the children running until SIGTERM, and return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._children = [self._start(late=index > 0) for index in range(self._settings.processes)]
        status = 0
        while self._children and not status:
            time.sleep(LOOK_SECONDS)
            self._read_reports()
            status = self._replace_dead()
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait()
        return status

    def _stop(self, *_: object) -> None:
        self._is_stopping = True
        for child in self._children:
            child.terminate()

    def _read_reports(self) -> None:
        with suppress(BlockingIOError):
            self._unread += os.read(self._reports, 4096)
        *lines, self._unread = self._unread.split(b"\n")
        self._ready.update(int(line) for line in lines if line.isdigit())
        running = {child.pid for child in self._children}
        if self._hold >= 0 and len(running) == self._settings.processes and running <= self._ready:
            os.close(self._hold)
            self._hold = -1

    def _replace_dead(self) -> int:
        """Start replacements for dead children. Return the exit status if one can't succeed, 0 otherwise."""
        for child in [child for child in self._children if child.poll() is not None]:
            self._children.remove(child)
            if self._is_stopping:
                continue
            if child.returncode == INIT_FAILED:
                return INIT_FAILED
            log(f"A scoring process ended with status {child.returncode}. Starting another.")
            time.sleep(PAUSE_SECONDS)
            if not self._is_stopping:
                self._children.append(self._start(late=bool(self._children)))
        return 0

    def _start(self, late: bool) -> subprocess.Popen[bytes]:
        number = self._listening.fileno()
        environment = {
            **os.environ,
            "MMS_LISTEN": f"fd:{number}",
            "MMS_PROCESSES": "1",
            "MMS_LATE": "1" if late else "0",
            "MMS_SIBLINGS": f"{self._report},{self._all_ready}",
        }
        command = [sys.executable, *_flags(), "-m", __package__ or "scoring"]
        return subprocess.Popen(command, env=environment, pass_fds=(number, self._report, self._all_ready))


def _flags() -> list[str]:
    """Return the options of the interpreter that limit imports to the image. Children need them too."""
    return [*(["-P"] if sys.flags.safe_path else []), *(["-S"] if sys.flags.no_site else [])]


def serve(settings: Settings) -> int:
    """Run `settings.processes` children on one socket and return the exit status."""
    try:
        listening = open_socket(settings.listen)
    except SetupError as reason:
        log(str(reason))
        return INIT_FAILED
    return Parent(settings, listening).run()
