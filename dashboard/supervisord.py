"""supervisord, made to end with its terminal and to leave no orphan behind.

Run by path and isolated (`python -I dashboard/supervisord.py -c FILE`): it imports neither Django nor Celery and stays
small, for it lives as long as the site.
"""

import ctypes
import signal
import sys

from supervisor import supervisord
from supervisor.options import ServerOptions

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)  # loaded here, for nothing may be loaded between fork and exec


class Options(ServerOptions):
    """supervisord's options, with two differences in how it treats signals."""

    def setsignals(self) -> None:
        """A closed terminal ends the site, as it ends any foreground program; supervisord would restart everything."""
        super().setsignals()
        signal.signal(signal.SIGHUP, lambda *_: self.signal_receiver.receive(signal.SIGTERM, None))

    def setpgrp(self) -> None:
        """Called in every child between fork and exec: it gets SIGTERM should supervisord itself be killed."""
        super().setpgrp()
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    supervisord.ServerOptions = Options  # main() makes its options by this name, anew on every restart
    supervisord.main()
