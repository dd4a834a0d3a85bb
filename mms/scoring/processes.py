"""Several scoring processes behind one listening socket (MMS_PROCESSES above 1).

The parent opens the socket and never touches a request; each child loads the model for itself. The first child
listens at once, so that somebody answers *starting*; the others, and every replacement, join when they can score.
"""

import os
import signal
import socket
import subprocess
import sys
import time

from .server import open_socket
from .settings import Misconfigured, Settings
from .worker import INIT_FAILED

PAUSE = 1.0  # seconds before a child that died is replaced
LOOK = 0.1


class Parent:
    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings, self._listening = settings, listening
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def run(self) -> int:
        """Keep the children running until SIGTERM; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._children = [self._start(late=index > 0) for index in range(self._settings.processes)]
        status = 0
        while self._children and not status:
            time.sleep(LOOK)
            status = self._replace_dead()
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait()
        return status

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()

    def _replace_dead(self) -> int:
        """Start anew who died. A child whose `init()` failed will fail again: then its status is returned."""
        for child in [child for child in self._children if child.poll() is not None]:
            self._children.remove(child)
            if self._stopping:
                continue
            if child.returncode == INIT_FAILED:
                return INIT_FAILED
            print(f"A scoring process ended with status {child.returncode}; another is started.", file=sys.stderr)
            time.sleep(PAUSE)
            if not self._stopping:
                self._children.append(self._start(late=bool(self._children)))
        return 0

    def _start(self, late: bool) -> subprocess.Popen[bytes]:
        number = self._listening.fileno()
        environment = {
            **os.environ,
            "MMS_LISTEN": f"fd:{number}",
            "MMS_PROCESSES": "1",
            "MMS_SHARED": "1",
            "MMS_LATE": "1" if late else "0",
        }
        command = [sys.executable, *_flags(), "-m", __package__ or "scoring"]
        return subprocess.Popen(command, env=environment, pass_fds=(number,))


def _flags() -> list[str]:
    """The options of the interpreter that keep this process's imports to the image; children are to have them too."""
    return [*(["-P"] if sys.flags.safe_path else []), *(["-S"] if sys.flags.no_site else [])]


def serve(settings: Settings) -> int:
    """Run `settings.processes` children on one socket; returns the exit status."""
    try:
        listening = open_socket(settings.listen)
    except Misconfigured as reason:
        print(reason, file=sys.stderr)
        return INIT_FAILED
    return Parent(settings, listening).run()
