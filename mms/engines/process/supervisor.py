"""Client of the running supervisord: XML-RPC over its Unix socket.

Its state and fault numbers, method names and log lines are repeated here, so that workers don't import supervisor.
tests/unit/mms/engines/test_supervisor.py compares them with the installed version.
"""

import re
import time
from collections.abc import Collection
from enum import IntEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy, Transport

from mms.engines.base import EngineUnavailableError
from mms.engines.probe import UnixConnection

CALL_TIMEOUT_SECONDS = 10.0  # no call used here waits for a process
LOG_TAIL_BYTES = 65536
POLL_SECONDS = 0.02
EXIT_LINE = r"exited: {name} \(([^;]*)"  # of supervisord's log: exited: NAME (exit status 3; not expected)


class State(IntEnum):
    """Process states of supervisord (supervisor.states.ProcessStates)."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200
    UNKNOWN = 1000


ALIVE = frozenset({State.STARTING, State.RUNNING})
GIVEN_UP = frozenset({State.STOPPED, State.EXITED, State.FATAL, State.UNKNOWN})


class FaultCode(IntEnum):
    """Reasons why supervisord rejects a call (supervisor.xmlrpc.Faults)."""

    BAD_ARGUMENTS = 3
    SHUTDOWN_STATE = 6
    BAD_NAME = 10
    NO_FILE = 20
    FAILED = 30
    ALREADY_STARTED = 60
    NOT_RUNNING = 70
    ALREADY_ADDED = 90
    STILL_RUNNING = 91


class UnixTransport(Transport):
    """XML-RPC over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> UnixConnection:
        """Return a connection to the socket, whatever the host."""
        return UnixConnection(self.path, CALL_TIMEOUT_SECONDS)


class Supervisor:
    """The supervisord behind one socket. All methods raise EngineUnavailableError if it can't be reached."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def add(self, name: str) -> None:
        """Reload the configuration and start its program `name`. Does nothing if it was already added."""
        self._call("reloadConfig")
        self._call("addProcessGroup", name, unless={FaultCode.ALREADY_ADDED})

    def start(self, name: str) -> None:
        """Start program `name` without waiting for it. Does nothing if it is running or unknown."""
        self._call("startProcess", name, False, unless={FaultCode.ALREADY_STARTED, FaultCode.BAD_NAME})

    def stop(self, name: str) -> None:
        """Stop program `name` without waiting for it. Does nothing if it isn't running or is unknown."""
        self._call("stopProcess", name, False, unless={FaultCode.NOT_RUNNING, FaultCode.BAD_NAME})

    def remove(self, name: str, timeout: float) -> None:
        """Stop program `name` and remove it from supervisord.

        Raises EngineUnavailableError if that takes longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.info(name) is not None:
            if time.monotonic() > deadline:
                raise EngineUnavailableError(f"{name} didn't stop within {timeout:g} s.")
            self.stop(name)
            self._call("removeProcessGroup", name, unless={FaultCode.STILL_RUNNING, FaultCode.BAD_NAME})
            time.sleep(POLL_SECONDS)

    def info(self, name: str) -> dict[str, Any] | None:
        """Return the state, start, now (Unix times), pid and so on of program `name`; None if it is unknown."""
        info: dict[str, Any] | None = self._call("getProcessInfo", name, unless={FaultCode.BAD_NAME})
        return info

    def state(self, name: str) -> State | None:
        """Return the state of program `name`; None if it is unknown."""
        info = self.info(name)
        return State(info["state"]) if info else None

    def names(self) -> set[str]:
        """Return the names of all programs."""
        return {info["name"] for info in self.programs()}

    def programs(self) -> list[dict[str, Any]]:
        """Return the result of `info` for all programs."""
        programs: list[dict[str, Any]] = self._call("getAllProcessInfo")
        return programs

    def last_exit(self, name: str) -> str:
        """Return how program `name` last ended, for example "exit status 3" or "terminated by SIGKILL"; "" if unknown.

        Read from supervisord's log, because supervisord discards the exit status when it restarts a program.
        """
        log = self._call(
            "readLog", -LOG_TAIL_BYTES, 0, unless={FaultCode.BAD_ARGUMENTS, FaultCode.NO_FILE, FaultCode.FAILED}
        )
        exits = re.findall(EXIT_LINE.format(name=re.escape(name)), log or "")
        return exits[-1] if exits else ""

    def _call(self, method: str, *arguments: Any, unless: Collection[int] = ()) -> Any:
        """Return the result of one call; None if it is rejected with a fault in `unless`."""
        try:
            with ServerProxy("http://supervisor", transport=UnixTransport(str(self.socket))) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except Fault as fault:
            if fault.faultCode in unless:
                return None
            if fault.faultCode == FaultCode.SHUTDOWN_STATE:
                raise EngineUnavailableError("The supervisor is shutting down.") from None
            raise EngineUnavailableError(f"The supervisor rejected {method}: {fault.faultString}") from None
        except (OSError, HTTPException, Error) as error:
            raise EngineUnavailableError(f"Couldn't reach the supervisor at {self.socket}: {error}") from None
