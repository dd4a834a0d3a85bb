"""Rollout and supervision of services: reconciles database rows with what an engine runs.

The states of a revision are starting -> active -> draining -> stopped, or starting -> failed. Rows change before the
engine is called, so a worker that is killed halfway leaves a state that a repeated `roll_out`, or `watch`, completes.
No database transaction is open during a wait.
"""

from mms.services.engine import engine_for, exposure, limits, process_engine, read_logs
from mms.services.rollout import RolloutError, roll_out, take_down
from mms.services.route import publish_route
from mms.services.watch import watch

__all__ = [
    "RolloutError",
    "engine_for",
    "exposure",
    "limits",
    "process_engine",
    "publish_route",
    "read_logs",
    "roll_out",
    "take_down",
    "watch",
]
