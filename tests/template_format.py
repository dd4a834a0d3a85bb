"""Check the format of templates: line length, one block element per line, and the names of partials.

    python -m tests.template_format

Prints each line that breaks a rule and fails if there is one. CONTRIBUTING.md lists the rules.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
MAX_COLUMNS = 120
BLOCKS = "article|dd|details|div|dl|dt|fieldset|footer|form|header|li|main|nav|ol|p|pre|section|table|td|th|tr|ul"
BLOCK_WITH_ATTRIBUTES = re.compile(rf"<(?:{BLOCKS})\s+[a-z{{]")
INCLUDED = re.compile(r"""\{%\s*include\s+"([^"]+)\"""")
EXTENDS = re.compile(r"\{%\s*extends\b")


def faults_of_line(line: str) -> Iterator[str]:
    """Yield each rule that one line of a template breaks."""
    if len(line) > MAX_COLUMNS:
        yield f"is {len(line)} columns wide, more than {MAX_COLUMNS}"
    if line != line.rstrip() or "\t" in line:
        yield "has a tab, or spaces at its end"
    if len(BLOCK_WITH_ATTRIBUTES.findall(line)) > 1:
        yield "has more than one block element with attributes"
    for name in INCLUDED.findall(line):
        if not name.rpartition("/")[2].startswith("_"):
            yield f"includes {name}: the name of a partial begins with an underscore"


def faults(root: Path = TEMPLATES) -> Iterator[str]:
    """Yield every fault in the templates below `root`, with file and line."""
    for path in sorted(root.rglob("*.html")):
        name, text = path.relative_to(root), path.read_text(encoding="utf-8")
        if path.name.startswith("_") and EXTENDS.search(text):
            yield f"{name}: a partial never extends another template"
        if not text.endswith("\n"):
            yield f"{name}: the last line has no line break"
        for number, line in enumerate(text.splitlines(), 1):
            yield from (f"{name}:{number}: {fault}" for fault in faults_of_line(line))


def main() -> None:
    """Print the faults. Exit with 1 if there are any."""
    found = list(faults())
    print("\n".join(found) or "Templates: OK")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
