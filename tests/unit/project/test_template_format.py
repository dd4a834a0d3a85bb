"""The check of the template format detects faults and finds none in the project's templates."""

from pathlib import Path

import pytest

from tests import template_format


def test_the_templates_of_the_project_have_no_fault() -> None:
    assert list(template_format.faults()) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("page.html", "x" * 121 + "\n", "page.html:1: is 121 columns wide"),
        ("page.html", "<p>\t</p>\n", "has a tab"),
        ("page.html", '<div class="a"><p class="b">\n', "more than one block element"),
        ("page.html", '{% include "noun/row.html" only %}\n', "begins with an underscore"),
        ("_part.html", '{% extends "base.html" %}\n', "never extends"),
        ("page.html", "<p></p>", "no line break"),
    ],
)
def test_a_fault_is_detected_and_described(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    assert [found for found in template_format.faults(tmp_path) if fault in found]
