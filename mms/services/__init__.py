"""Services and their revisions: rows of the database brought together with what an engine runs.

A revision goes starting → active → draining → stopped, or starting → failed. Rows change before the engine is told,
so whoever is killed in the middle leaves something that `roll_out`, run again, or `watch` finishes. No transaction is
open while anything is waited for.
"""

from mms.services.engine import engine_for, exposure, read_logs
from mms.services.rollout import RolloutError, roll_out, take_down
from mms.services.route import publish_route
from mms.services.watch import watch

__all__ = [
    "RolloutError",
    "engine_for",
    "exposure",
    "publish_route",
    "read_logs",
    "roll_out",
    "take_down",
    "watch",
]
