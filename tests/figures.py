"""Figures measured by tests and printed at the end of the run. The pages in docs/explanation/ quote them."""

import json
from collections.abc import Iterator

import pytest

Figures = dict[str, object] | list[str]
FIGURES: dict[str, Figures] = {}
_of_workers: list[dict[str, Figures]] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the figures of a pytest-xdist worker to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        # As JSON: xdist can send plain types only, and a figure may be a Counter.
        session.config.workeroutput["figures"] = json.dumps(FIGURES)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Receive the figures of a worker."""
    _of_workers.append(json.loads(getattr(node, "workeroutput", {}).get("figures", "{}")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _lines():
        terminalreporter.write_line(line)


def _lines() -> Iterator[str]:
    for figures in [FIGURES, *_of_workers]:
        for name, measured in figures.items():
            if isinstance(measured, list):
                yield from (name, *(f"  {line}" for line in measured))
            else:
                yield f"{name}: {json.dumps(measured)}"
