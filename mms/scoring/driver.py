"""The driver program of an image: loaded once, then called for one request at a time."""

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .schema import Malformed, Schema, parse
from .settings import App, Misconfigured


def error(code: str, message: str) -> bytes:
    """The JSON of an error answer."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


class Driver:
    """`init()` and `run()` of the file that the manifest marks as its driver program."""

    def __init__(self, app: App, directory: Path) -> None:
        """`directory` is the working directory that app.json's paths are relative to."""
        self.title = Path(app.driver).name
        self.schema = Schema.read(directory / app.schema) if app.schema else Schema({})
        self._path = directory / app.driver
        self._run: Callable[..., Any] = lambda *_, **__: None

    def init(self) -> None:
        """Load the file and call its `init()`. Raises Misconfigured, or whatever the driver raises."""
        module = self._load()
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise Misconfigured(f"The driver program {self._path.name} has no function {name}().")
        module.init()
        self._run = module.run

    def _load(self) -> Any:
        """Import the driver under its own name, so that pickles which name it are found again."""
        name = self._path.stem
        if name in sys.modules:
            name = f"driver_{name}"
        spec = importlib.util.spec_from_file_location(name, self._path)
        if spec is None or spec.loader is None or not self._path.is_file():
            raise Misconfigured(f"The driver program {self._path.name} is not a Python file of this image.")
        sys.path.insert(0, str(self._path.parent))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    def score(self, body: bytes) -> tuple[int, bytes]:
        """Status and JSON answer for one request. Never raises: what the driver raises is answered and logged."""
        try:
            text = body.decode()
            fields = self.schema.arguments(text) if self.schema.fields else None
        except UnicodeDecodeError as reason:
            return 400, error("MalformedInput", f"The body is not UTF-8 text: {reason}.")
        except Malformed as reason:
            return 400, error("MalformedInput", str(reason))
        try:
            return 200, encode(self._run(text) if fields is None else self._run(**fields))
        except BaseException as raised:  # a driver that calls sys.exit() must not end the thread silently
            return _failure(raised, text)


def _failure(raised: BaseException, text: str) -> tuple[int, bytes]:
    """What a failed `run()` is answered with. A body that is no JSON is the caller's fault, not the driver's."""
    if isinstance(raised, json.JSONDecodeError):
        try:
            parse(text)
        except Malformed as reason:
            return 400, error("MalformedInput", str(reason))
    traceback.print_exception(raised, file=sys.stderr)
    return 500, error("DriverFailed", f"{type(raised).__name__}: {raised}")


def encode(result: Any) -> bytes:
    """The JSON of what `run()` returned: a text that is JSON already goes out as it is, arrays become lists.

    Raises TypeError or ValueError naming what JSON cannot say.
    """
    if isinstance(result, bytes):
        result = result.decode()
    if isinstance(result, str) and _is_json(result):
        return result.encode()
    return json.dumps(result, default=_plain, allow_nan=False).encode()


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        return False
    return True


def _refuse_constant(name: str) -> None:
    raise TypeError(f"run() returned {name}, which JSON cannot say")


def _plain(value: Any) -> Any:
    """numpy's and pandas' own types say how they look as lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict("records") if hasattr(value, "columns") else value.to_dict()
    raise TypeError(f"run() returned a {type(value).__name__}, which JSON cannot say")
