"""docs/reference/mms-api.md matches the code."""

import re

from django.conf import settings

from mms.api.routes import ROUTES

PAGE = (settings.BASE_DIR / "docs" / "reference" / "mms-api.md").read_text()


def test_it_lists_every_operation_with_its_status_and_no_other() -> None:
    told = set(re.findall(r"\| `(GET|POST|PUT|DELETE) ([\w/{}]+)`[^|]*\| (\d+)", PAGE))
    assert told == {(route.method, route.path, str(route.status)) for route in ROUTES}


def test_it_marks_extensions_of_the_reference() -> None:
    marked = {path for _, path in re.findall(r"\*Extension:\*[^|]*\| `(\w+ )?([\w/{}]+)`", PAGE)}
    assert marked == {route.path for route in ROUTES if route.extension}


def test_it_names_every_filter() -> None:
    for route in ROUTES:
        row = next(line for line in PAGE.splitlines() if f"`{route.method} {route.path}`" in line)
        assert all(f"`{name}`" in row for name in route.query), row


def test_it_names_every_error_code() -> None:
    sources = "".join(path.read_text() for path in (settings.BASE_DIR / "mms" / "api").rglob("*.py"))
    codes = set(re.findall(r'(?:ApiError\(\d+, |conflict\(\s*|detail\()"([A-Z]\w+)"', sources))
    codes |= set(re.findall(r'bad_field\([^()]*"([A-Z]\w+)"\)', sources))
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in PAGE} <= {"ServerError"}
