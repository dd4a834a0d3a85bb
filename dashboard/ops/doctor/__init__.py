"""Checks of an installation, with advice on how to fix each problem.

There is one module per part that can fail. `manage.py doctor` and the page System status show the same findings.
"""

from dashboard.ops.doctor.finding import CheckContext, Finding, State, group_by_part, summary
from dashboard.ops.doctor.run import CHECKS, run_checks

__all__ = ["CHECKS", "CheckContext", "Finding", "State", "group_by_part", "run_checks", "summary"]
