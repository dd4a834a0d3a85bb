"""Start a program once the web server answers: `python -I after_web.py HOST PORT HOST_NAME -- COMMAND...`.

The web server then doesn't compete for the CPU at startup, and pages respond before the workers have loaded their code.
Uses only the standard library, because this process only waits and then becomes the program.
"""

import http.client
import os
import sys
import time

MAX_SECONDS = 10.0  # then the program starts without the web server
POLL_SECONDS = 0.05
PATH = "/sign-in/"  # its first response loads the code and the templates of pages


def wait(host: str, port: int, host_name: str, seconds: float = MAX_SECONDS) -> bool:
    """Wait until a server responds on `port`, whatever its response is. Return False if none does in time."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        connection = http.client.HTTPConnection(host, port, timeout=left)
        try:
            connection.request("GET", PATH, headers={"Host": host_name})
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            time.sleep(POLL_SECONDS)
        else:
            return True
        finally:
            connection.close()
    return False


if __name__ == "__main__":
    wait(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    os.execv(sys.argv[5], sys.argv[5:])  # noqa: S606 - the site's own command line
