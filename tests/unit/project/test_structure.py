"""The layout of the code: every package has a docstring, and none has too many modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

TOP = ("dashboard", "deployments", "encryption", "mms", "netguard")
MAX_CHILDREN = 9
# Names that Python, Django, Celery and ASGI look for in a fixed place.
DICTATED = {
    "__main__",
    "apps",
    "asgi",
    "celery",
    "management",
    "migrations",
    "models",
    "settings",
    "tasks",
    "templatetags",
    "urls",
}
COMMANDS = "dashboard/management/commands"  # one module per command of manage.py, where Django looks for them


def packages() -> Iterator[str]:
    """Yield the path of every package below the repository's root, such as "mms/api"."""
    root = Path(settings.BASE_DIR)
    for top in TOP:
        for folder in sorted({path.parent for path in (root / top).rglob("*.py")}):
            if "migrations" not in folder.parts:
                yield str(folder.relative_to(root))


def children(package: str) -> set[str]:
    """Return the names of the modules of a package, and of its sub-packages unless it is a top-level package."""
    folder = Path(settings.BASE_DIR, package)
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    below = {path.parent.name for path in folder.glob("*/__init__.py")} if package not in TOP else set()
    return (modules | below) - DICTATED


@pytest.mark.parametrize("package", list(packages()))
def test_a_package_has_a_docstring(package: str) -> None:
    source = Path(settings.BASE_DIR, package, "__init__.py").read_text()
    assert ast.get_docstring(ast.parse(source)), f"{package}/__init__.py needs a docstring that describes its content"


@pytest.mark.parametrize("package", [name for name in packages() if name != COMMANDS])
def test_a_package_has_at_most_nine_children(package: str) -> None:
    found = sorted(children(package))
    assert len(found) <= MAX_CHILDREN, f"{package} has {len(found)}: group some of {', '.join(found)} in a package"
