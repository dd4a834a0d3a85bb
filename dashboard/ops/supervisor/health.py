"""Health of the site's programs. Used by /healthz and by the system status.

Beat and the workers are judged by their heartbeats, the gateway by its response.
"""

import http.client
from http import HTTPStatus

from dashboard.ops.supervisor import heartbeat
from dashboard.ops.supervisor.heartbeat import Heartbeat
from netguard.addresses import local_host

WORKS = "works"
GATEWAY_SECONDS = 2.0
QUEUES = {"dashboard": "celery", "mms": "mms"}  # queue by half of the site, as in settings.SERVE


def state_of_beat(last: Heartbeat | None, now: float) -> str:
    """Return WORKS, or how long ago the last heartbeat of beat was. `now` is a Unix time in seconds."""
    if last is None:
        return f"no heartbeat for {heartbeat.TTL_SECONDS} s or more"
    age = now - last.at
    return WORKS if age <= heartbeat.STALE_SECONDS else f"no heartbeat for {age:.0f} s"


def state_of_worker(last: Heartbeat | None, now: float, beat_works: bool) -> str:
    """Return WORKS, or a description of the worker's problem.

    While beat sends tasks, a worker must also complete some: it can be connected without receiving messages.
    """
    state = state_of_beat(last, now)
    if last is None or state != WORKS or not beat_works:
        return state
    idle = now - last.task_completed_at
    return WORKS if idle <= heartbeat.IDLE_SECONDS else f"running, but no task completed in {idle:.0f} s"


def state_of_gateway(host: str, port: int) -> str:
    """Return WORKS if the gateway that listens on `host` and `port` responds, else the problem."""
    connection = http.client.HTTPConnection(local_host(host), port, timeout=GATEWAY_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "not responding"
    finally:
        connection.close()
    return WORKS if status == HTTPStatus.OK else f"responded with status {status}"
