"""A client of the running supervisord: XML-RPC over its unix socket."""

import re
import time
from enum import IntEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy, Transport

from mms.engines.base import EngineUnavailableError
from mms.engines.probe import UnixConnection

CALL_TIMEOUT = 10.0  # seconds; no call used here waits for a process
LOG_TAIL_BYTES = 65536
POLL_SECONDS = 0.02


class State(IntEnum):
    """supervisord's process states (supervisor.states)."""

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


class Reason(IntEnum):
    """Why supervisord refuses a call (supervisor.xmlrpc.Faults)."""

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
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> UnixConnection:
        return UnixConnection(self.path, CALL_TIMEOUT)


class Supervisor:
    """The supervisord behind one socket. Every method raises EngineUnavailableError where it cannot be asked."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def add(self, name: str) -> None:
        """Read the configuration anew and start program `name` of it; nothing happens where it is known already."""
        self._call("reloadConfig")
        self._call("addProcessGroup", name, unless={Reason.ALREADY_ADDED})

    def start(self, name: str) -> None:
        self._call("startProcess", name, False, unless={Reason.ALREADY_STARTED, Reason.BAD_NAME})

    def stop(self, name: str) -> None:
        """Have program `name` stopped, and don't wait for it."""
        self._call("stopProcess", name, False, unless={Reason.NOT_RUNNING, Reason.BAD_NAME})

    def remove(self, name: str, patience: float) -> None:
        """Stop program `name` and remove it from supervisord.

        Raises EngineUnavailableError if that takes longer than `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while self.info(name) is not None:
            if time.monotonic() > deadline:
                raise EngineUnavailableError(f"{name} does not stop within {patience:g} s.")
            self.stop(name)
            self._call("removeProcessGroup", name, unless={Reason.STILL_RUNNING, Reason.BAD_NAME})
            time.sleep(POLL_SECONDS)

    def info(self, name: str) -> dict[str, Any] | None:
        """What supervisord knows of program `name`: state, start, now (seconds), pid…; None where it is unknown."""
        return self._call("getProcessInfo", name, unless={Reason.BAD_NAME})

    def state(self, name: str) -> State | None:
        info = self.info(name)
        return State(info["state"]) if info else None

    def names(self) -> set[str]:
        return {info["name"] for info in self.programs()}

    def programs(self) -> list[dict[str, Any]]:
        """What `info` says, of every program."""
        found: list[dict[str, Any]] = self._call("getAllProcessInfo")
        return found

    def last_exit(self, name: str) -> str:
        """How program `name` ended last: "exit status 3", "terminated by SIGKILL"; "" where its log has no word of it.

        supervisord forgets the exit status as soon as it starts a program again; its log does not.
        """
        log = self._call("readLog", -LOG_TAIL_BYTES, 0, unless={Reason.BAD_ARGUMENTS, Reason.NO_FILE, Reason.FAILED})
        exits = re.findall(rf"exited: {re.escape(name)} \(([^;]*)", log or "")
        return exits[-1] if exits else ""

    def _call(self, method: str, *arguments: Any, unless: set[Any] = frozenset()) -> Any:  # type: ignore[assignment]
        """The answer of one call; None where it is refused for a reason in `unless`."""
        try:
            with ServerProxy("http://supervisor", transport=UnixTransport(str(self.socket))) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except Fault as fault:
            if fault.faultCode in unless:
                return None
            if fault.faultCode == Reason.SHUTDOWN_STATE:
                raise EngineUnavailableError("The supervisor is shutting down.") from None
            raise EngineUnavailableError(f"The supervisor refused {method}: {fault.faultString}") from None
        except (OSError, HTTPException, Error) as error:
            raise EngineUnavailableError(f"The supervisor does not answer at {self.socket}: {error}") from None
