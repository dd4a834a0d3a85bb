"""Check the documentation without building it: links, anchors, file names, navigation and line length.

    python -m tests.docs_links

`make docs` checks the same links with mkdocs. This is the fast version for `make check`; it also covers files outside
docs/.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MAX_COLUMNS = 100
FENCE = re.compile(r"^\s*(```|~~~)")
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$")
FILE_NAME = re.compile(r"(?<![\w./-])(?:docs|examples|static|templates|tests)/[\w./-]*\w")
EXTERNAL = re.compile(r"^([a-z]+:|//)")


def pages() -> list[Path]:
    """Return every Markdown file that is in git or could be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = sorted(set(listed.split("\0")) - {""})
    return [path for name in names if (path := ROOT / name).is_file()]


def prose(page: Path) -> Iterator[str]:
    """Yield every line of `page`, with fenced code blocks replaced by empty lines."""
    in_code = False
    for line in page.read_text(encoding="utf-8").splitlines():
        is_fence = bool(FENCE.match(line))
        in_code ^= is_fence
        yield "" if in_code or is_fence else line


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of `page`, as mkdocs and GitHub generate them."""
    found: set[str] = set()
    for line in prose(page):
        if heading := HEADING.match(line):
            slug = re.sub(r"[^\w\s-]", "", heading[1]).strip().lower()
            slug = base = re.sub(r"[-\s]+", "-", slug)
            count = 0
            while slug in found:
                count += 1
                slug = f"{base}_{count}"
            found.add(slug)
    return found


def link_problem(page: Path, link: str) -> str:
    """Return what is wrong with `link` on `page`, or an empty string."""
    if EXTERNAL.match(link):
        return ""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return "not found"
    if DOCS in page.parents and DOCS not in target.parents:
        return "outside docs/, so the site can't link to it"
    if anchor and anchor not in anchors(target):
        return "no such heading"
    return ""


def problems() -> Iterator[str]:
    """Yield each problem as `file:line: description`."""
    for page in pages():
        name = page.relative_to(ROOT)
        text = "\n".join(prose(page))
        for match in LINK.finditer(INLINE_CODE.sub(lambda code: re.sub(r"[^\n]", ".", code[0]), text)):
            if problem := link_problem(page, match[1]):
                yield f"{name}:{text.count(chr(10), 0, match.start(1)) + 1}: {match[1]}: {problem}"
        for match in INLINE_CODE.finditer(text):
            for file_name in FILE_NAME.findall(match[0]):
                if not (ROOT / file_name).exists() and not (ROOT / f"{file_name}.py").exists():
                    yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {file_name}: not found"
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > MAX_COLUMNS and not line.lstrip().startswith(("|", "![", "[")):
                yield f"{name}:{number}: longer than {MAX_COLUMNS} columns"
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", navigation))
    existing = {str(page.relative_to(DOCS)) for page in pages() if DOCS in page.parents}
    for missing in sorted(existing - listed):
        yield f"mkdocs.yml: docs/{missing} is missing from nav"
    for unknown in sorted(listed - existing):
        yield f"mkdocs.yml: docs/{unknown} doesn't exist"
    index = DOCS / "decisions" / "index.md"
    for note in sorted(page for page in pages() if page.parent == index.parent and page != index):
        if f"({note.name})" not in index.read_text(encoding="utf-8"):
            yield f"{index.relative_to(ROOT)}: {note.name} is missing"


def main() -> int:
    """Print the problems; return 1 if there are any."""
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
