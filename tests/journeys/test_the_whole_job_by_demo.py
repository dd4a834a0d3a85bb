"""`manage.py demo`: the whole workflow through the dashboard's pipeline, on a running site."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site

pytestmark = pytest.mark.slow


def test_the_demo_deploys_the_example_and_a_second_one_updates_it(running: Site) -> None:
    first = running.manage("demo")
    assert "create service" in first
    assert '"species": ["setosa", "virginica"]' in first
    second = running.manage("demo")
    assert "update service" in second
    assert _version(second) > _version(first)
    assert '"species": ["setosa", "virginica"]' in second


def test_the_demo_reports_that_the_site_is_not_running(data: Any, tmp_path: Path) -> None:
    nowhere = Site(tmp_path / "data")
    with pytest.raises(AssertionError, match="Start it with `make up`"):
        nowhere.manage("demo")


def _version(printed: str) -> int:
    match = re.search(r"register model +iris v(\d+)", printed)
    assert match, printed
    return int(match[1])
