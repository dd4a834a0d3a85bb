"""docs/explanation/promises.md names existing tests, which run in the whole run."""

import re

from django.conf import settings

PAGE = (settings.BASE_DIR / "docs" / "explanation" / "promises.md").read_text()


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`((?:tests/[\w/]+/)?test_\w+)`", PAGE)
    assert len(named) > 40
    files = {name if "/" in name else f"tests/faults/{name}" for name in named}
    assert not [name for name in sorted(files) if not (settings.BASE_DIR / f"{name}.py").exists()]


def test_no_test_is_left_out_of_the_whole_run() -> None:
    """A nightly test is the long twin of one that runs always, because only `twins` marks tests so."""
    tests = settings.BASE_DIR / "tests"
    others = [path for path in tests.rglob("*.py") if path.name not in {"twins.py", "runner.py", "test_runner.py"}]
    assert len(others) > 100
    assert [path for path in others if re.search(r"mark\.nightly", path.read_text())] == []


def test_every_test_of_faults_keeps_a_promise() -> None:
    there = {path.stem for path in (settings.BASE_DIR / "tests" / "faults").glob("test_*.py")}
    assert there - set(re.findall(r"`(test_\w+)`", PAGE)) == set()
