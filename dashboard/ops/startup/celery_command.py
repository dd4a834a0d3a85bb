"""Celery's command line without its interactive shell: `python -m dashboard.ops.startup.celery_command worker ...`.

Celery imports click-repl for a shell inside `celery amqp`, and with it prompt-toolkit: 7 MB in every worker and in the
scheduler. test_celery_internals.py fails if a release of Celery uses more of it.
"""

import sys
from types import ModuleType

from celery.__main__ import main as run_celery


def main() -> None:
    """Run the command in `sys.argv`."""
    substitute = ModuleType("click_repl")
    substitute.register_repl = lambda _group: None  # type: ignore[attr-defined]  # a module has any attribute
    sys.modules["click_repl"] = substitute
    run_celery()


if __name__ == "__main__":
    main()
