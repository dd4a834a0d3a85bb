"""Check of the driver script before anything is built: a Python file that defines init() and run().

The script is parsed but never run. A script that could define the functions in a way that parsing can't follow, such
as `from x import *`, is accepted.
"""

import ast
import codecs
import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from mms.images.plan.placement import asset_paths
from mms.images.sources.fetch import base_name

FUNCTIONS = ("init", "run")
# Names whose use can define any other name at the top level of a module.
_DYNAMIC_NAMES = frozenset({"__dict__", "__getattr__", "exec", "globals", "locals", "modules", "setattr", "vars"})


class DriverError(Exception):
    """The driver can't work. The message completes a sentence about it: "is a Jupyter notebook. ..."."""


def script_paths(asset_id: str, url: str) -> list[PurePosixPath]:
    """Return the paths of the driver in /app, the one to import first. Raises DriverError if it isn't a Python file.

    Python imports only files whose name ends in ".py". A name without an extension gets it.
    """
    paths = asset_paths(asset_id, url)
    if scripts := [path for path in paths if path.suffix == ".py"]:
        return sorted(paths, key=lambda path: path not in scripts)
    name = base_name(url) or asset_id
    if PurePosixPath(name).suffix.lower() == ".ipynb":
        raise DriverError(_notebook_message(name))
    for path in paths:
        if path.suffix.lower() in {"", ".py"}:
            return [path.with_suffix(".py"), *paths]
    raise DriverError(
        f"is the file {name!r}, but a driver must be a Python script. Use a file with the extension .py, or an asset "
        "with an ID such as score.py"
    )


def check_source(source: bytes, name: str, is_host_python: bool = True) -> None:
    """Raise DriverError unless `source` is a Python script that may define init() and run().

    If the image runs another Python version than this program, a syntax error isn't an error.
    """
    if _is_notebook(source):
        raise DriverError(_notebook_message(name))
    try:
        tree = ast.parse(source, filename=name)
        compile(tree, name, "exec", dont_inherit=True)  # also finds a return outside a function
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if is_host_python or not isinstance(error, SyntaxError):
            raise DriverError(_syntax_message(error)) from None
        return
    if missing := missing_functions(tree):
        raise DriverError(_missing_message(tree, missing))


def missing_functions(tree: ast.Module) -> list[str]:
    """Return which of `init` and `run` the script definitely doesn't define at its top level."""
    if any(_can_define_anything(node) for node in ast.walk(tree)):
        return []
    defined = {name for node in _top_level(tree) for name in _names(node)}
    return [name for name in FUNCTIONS if name not in defined]


def _can_define_anything(node: ast.AST) -> bool:
    match node:
        case ast.ImportFrom(names=names):
            return any(alias.name == "*" for alias in names)
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
            return name in _DYNAMIC_NAMES
    return False


def _top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported, and every `global` statement."""
    # The driver is imported, so it never has the name __main__.
    children = tree.orelse if isinstance(tree, ast.If) and _is_main_check(tree) else ast.iter_child_nodes(tree)
    for node in children:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Global))
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            yield from (inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
        else:
            yield from _top_level(node)


def _is_main_check(node: ast.If) -> bool:
    return ast.unparse(node.test) in {"__name__ == '__main__'", "'__main__' == __name__"}


def _names(node: ast.AST) -> list[str]:
    """Return the names that a node binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).partition(".")[0] for alias in names]
        case ast.Global(names=global_names):
            return global_names
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
    return []


def _missing_message(tree: ast.Module, missing: list[str]) -> str:
    functions = " and ".join(f"{name}()" for name in missing)
    owner = next(
        (
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(isinstance(item, ast.FunctionDef) and item.name in missing for item in node.body)
        ),
        "",
    )
    where = f", only methods of the class {owner}" if owner else ""
    solution = "Define init(), which loads the model, and run(), which answers a request, outside of any class"
    return f"has no function {functions} at its top level{where}. {solution}"


def _syntax_message(error: Exception) -> str:
    where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
    if isinstance(error, RecursionError | MemoryError):
        reason = "its code is too long or nested too deeply"
    if "codec can't decode" in reason or "Non-UTF-8" in reason:
        return "isn't UTF-8 text. Save it as UTF-8, or name its encoding in the first line (# -*- coding: latin-1 -*-)"
    return f"is not valid Python{where}: {reason}. Correct it"


def _is_notebook(source: bytes) -> bool:
    """Return True if `source` is a Jupyter notebook, whatever its file is called."""
    if not source.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{") or b'"cells"' not in source:
        return False
    try:
        document = json.loads(source)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "nbformat" in document


def _notebook_message(name: str) -> str:
    return (
        f"is a Jupyter notebook ({name}), but a driver must be a Python script. "
        "Export it (jupyter nbconvert --to script) and define init() and run() in the script"
    )
