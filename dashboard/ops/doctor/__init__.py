"""Does everything work that an installation consists of, and if not, what is to be done about it?

One module per thing that can break. `manage.py doctor` and the page of the same name show the same findings.
"""

from dashboard.ops.doctor.finding import Asked, Finding, State, by_part, summary
from dashboard.ops.doctor.run import CHECKS, examine

__all__ = ["CHECKS", "Asked", "Finding", "State", "by_part", "examine", "summary"]
