"""`python -m scoring`: what an image runs."""

import os
import signal
import sys


def main() -> int:
    """Serve until SIGTERM; returns the exit status."""
    # In a sandbox this process may start with SIGTERM ignored; until a server takes it over, it ends the process.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    from . import processes, server
    from .settings import Misconfigured, Settings

    try:
        settings = Settings.from_environment(os.environ)
    except Misconfigured as reason:
        print(reason, file=sys.stderr)
        return server.INIT_FAILED
    return processes.serve(settings) if settings.processes > 1 else server.serve(settings)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit(): a driver whose run() never ends would hold up the interpreter's own clean-up.
    os._exit(status)
