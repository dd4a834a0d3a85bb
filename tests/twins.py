"""Long tests in two variants: the short twin always runs, the long one only with --nightly."""

from typing import Any

import pytest

_nightly = False


def pytest_configure(config: pytest.Config) -> None:
    global _nightly
    _nightly = config.option.nightly


def examples(short: int, long: int) -> int:
    """Return the number of examples for hypothesis: `long` with --nightly, otherwise `short` (the first of them)."""
    return long if _nightly else short


def twins(name: str, short: Any, long: Any, *, indirect: bool = False) -> pytest.MarkDecorator:
    """Parametrize the argument `name` of a test with a short value, and with a long one for the nightly run.

    Give the rounds, seconds or examples of both: `@twins("rounds", 3, 20)`.
    """
    cases = [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.nightly)]
    return pytest.mark.parametrize(name, cases, indirect=indirect)
