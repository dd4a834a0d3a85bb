"""docs/explanation/promises.md names existing tests that run in every complete run."""

import re

from django.conf import settings

PAGE = (settings.BASE_DIR / "docs" / "explanation" / "promises.md").read_text()


def test_every_test_named_by_a_promise_exists() -> None:
    named = re.findall(r"`((?:tests/[\w/]+/)?test_\w+)`", PAGE)
    assert len(named) > 40
    files = {name if "/" in name else f"tests/faults/{name}" for name in named}
    assert not [name for name in sorted(files) if not (settings.BASE_DIR / f"{name}.py").exists()]


def test_no_test_is_excluded_from_the_complete_run() -> None:
    """Every nightly test is the long twin of a test that always runs, because only `twins` sets the marker."""
    tests = settings.BASE_DIR / "tests"
    others = [path for path in tests.rglob("*.py") if path.name not in {"twins.py", "runner.py", "test_runner.py"}]
    assert len(others) > 100
    assert [path for path in others if re.search(r"mark\.nightly", path.read_text())] == []


def test_every_fault_test_belongs_to_a_promise() -> None:
    there = {path.stem for path in (settings.BASE_DIR / "tests" / "faults").glob("test_*.py")}
    assert there - set(re.findall(r"`(test_\w+)`", PAGE)) == set()
