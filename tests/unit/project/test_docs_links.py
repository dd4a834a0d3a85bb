"""The documentation has no broken links, and the check detects them."""

from pathlib import Path

import pytest

from tests import docs_links


def test_the_docs_have_no_problems() -> None:
    assert list(docs_links.problems()) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](gone.md)", "gone.md: not found"),
        ("[a](other.md#no-such)", "other.md#no-such: no such heading"),
        ("[a](#nowhere)", "#nowhere: no such heading"),
        ("x" * 101, "longer than 100 columns"),
        ("[a](other.md#a-heading)", ""),
        ("[a](#here) [b](https://example.com/gone)\n\n# Here", ""),
        ("```\n[a](gone.md)\n```", ""),
        ("`[a](gone.md)`", ""),
        ("[`a`](gone.md)", "gone.md: not found"),
        ("`make test T=tests/gone.py`", "tests/gone.py: not found"),
        ("`tests/there`", ""),
        ("[two\nlines](gone.md)", "gone.md: not found"),
    ],
)
def test_a_problem_is_detected(text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    (tmp_path / "other.md").write_text("# A heading\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "there.py").touch()
    (tmp_path / "mkdocs.yml").write_text("nav: []\n")
    monkeypatch.setattr(docs_links, "ROOT", tmp_path)
    monkeypatch.setattr(docs_links, "pages", lambda: [page])
    assert [line.partition(": ")[2] for line in docs_links.problems()] == ([problem] if problem else [])
