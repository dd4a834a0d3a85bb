"""docs/explanation/security.md and docs/reference/permissions.md match the code."""

import re

from django.conf import settings

from dashboard.access.permissions import Permission, required_level

PAGE = (settings.BASE_DIR / "docs" / "explanation" / "security.md").read_text()
PERMISSIONS = (settings.BASE_DIR / "docs" / "reference" / "permissions.md").read_text()


def test_the_permissions_table_matches_the_code() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ((?:(?:yes)? \| ){3}(?:yes)?) \|$", PERMISSIONS, re.MULTILINE))
    told = {label.strip(): [bool(cell.strip()) for cell in cells.split("|")] for label, cells in rows.items()}
    decided = {may.label: [rank >= required_level(may) for rank in (1, 2, 3, 4)] for may in Permission}
    assert told == decided


def test_every_test_it_names_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+)`", PAGE))
    assert len(named) > 8
    assert not [name for name in sorted(named) if not (settings.BASE_DIR / f"{name}.py").exists()]


def test_every_link_has_a_target() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert [link for link in links if not (settings.BASE_DIR / "docs" / "explanation" / link).exists()] == []
