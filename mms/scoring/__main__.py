"""Entry point of images: `python -m scoring`."""

import os
import signal
import sys
from contextlib import suppress


def main() -> int:
    """Serve until SIGTERM and return the exit status."""
    # In a sandbox this process may start with SIGTERM ignored. Until a server handles the signal, it ends the process.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    close_input()

    from . import processes, server
    from .errors import log
    from .settings import INIT_FAILED, Settings, SetupError

    try:
        settings = Settings.from_environment(os.environ)
    except SetupError as reason:
        log(str(reason))
        return INIT_FAILED
    return processes.serve(settings) if settings.processes > 1 else server.serve(settings)


def close_input() -> None:
    """Make stdin empty, so that `input()` in a driver fails instead of waiting."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null:
        os.dup2(null, 0)
        os.close(null)


if __name__ == "__main__":
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a driver may have closed it
            stream.flush()
    # Not sys.exit(): a call of run() that never ends would delay the interpreter's own clean-up.
    os._exit(status)
