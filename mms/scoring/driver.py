"""The driver script of an image: loaded once, then called for one request at a time, always in the same thread."""

import asyncio
import codecs
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import lru_cache
from pathlib import Path
from typing import Any

from .answers import AnswerError, encode
from .errors import UNKNOWN_FAILURE, describe, error, log, log_exception, shorten
from .schema import InputError, Schema, decode, parse
from .settings import App, SetupError

# Codecs of Python that aren't character sets of text, or take quadratic time.
REFUSED_CODECS = frozenset({"idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined", "utf-7"})
# Types that can't be awaited, for a quick check.
PLAIN = frozenset({dict, list, tuple, str, int, float, bool, bytes, type(None)})


class Driver:
    """`init()` and `run()` of the file that the manifest names as its driver."""

    def __init__(self, app: App, directory: Path, answer_max_bytes: int) -> None:
        """`directory` is the working directory, which paths in app.json are relative to."""
        self.title = Path(app.driver).name
        self.schema = Schema.read(directory / app.schema) if app.schema else Schema({})
        self._path = directory / app.driver
        self._answer_max_bytes = answer_max_bytes
        self._run: Callable[..., Any] = lambda *_, **__: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = copy_context()  # of init(); each request gets a copy

    def init(self) -> None:
        """Load the file and call its `init()`. Raises SetupError, or whatever the driver raises."""
        self._open_loop()
        module = self._load()
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise SetupError(f"The driver {self.title} has no function {name}(). Define it.")
        self._check_signatures(module.init, module.run)
        run = module.run
        self._finish(self._context.run(module.init), self._context)
        if module.run is not run:
            self._check_signatures(module.init, module.run)
        self._run = module.run

    def _load(self) -> Any:
        """Import the driver under its own name, so that pickles which refer to it can be loaded."""
        name = self._path.stem
        if name in sys.modules:
            name = f"driver_{name}"
        spec = importlib.util.spec_from_file_location(name, self._path)
        if spec is None or spec.loader is None or not self._path.is_file():
            raise SetupError(f"The driver {self.title} is not a Python file of this image.")
        sys.path.insert(0, str(self._path.parent))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    # --- signatures -----------------------------------------------------------------------------------------------

    def _check_signatures(self, init: Callable[..., Any], run: Callable[..., Any]) -> None:
        """Raise SetupError if the calls of `init` and `run` would fail, or would never execute their code."""
        _check_generator(init, "init()", "Its code would never run. Remove yield.")
        _check_generator(run, "run()", "Answers can't be streamed. Return a list.")
        if reason := _mismatch(init):
            raise SetupError(f"The driver's init() is called without arguments, but {reason}.")
        fields = list(self.schema.fields)
        if fields and (reason := _mismatch(run, **dict.fromkeys(fields))):
            called = f"is called with the fields of the schema, {', '.join(fields)}"
            raise SetupError(f"The driver's run() {called}, but {reason}.")
        if not fields and (reason := _mismatch(run, "")):
            raise SetupError(
                f"The driver's run() is called with one argument, the request's body, but {reason}. "
                "Change it, or add a schema with its fields."
            )

    # --- calls ----------------------------------------------------------------------------------------------------

    def score(self, body: bytes, charset_from: bytes | None = None) -> tuple[int, bytes]:
        """Return status and JSON for one request. Never raises: exceptions of the driver are answered and logged.

        `charset_from` is the Content-Type of the body, if it has a charset.
        """
        try:
            try:
                text = decode(body) if charset_from is None else decode(body, _codec(charset_from))
            except UnicodeDecodeError as reason:
                return 400, error("MalformedInput", _undecodable(reason))
            fields = self.schema.arguments(text) if self.schema.fields else None
            # Context variables of one request aren't visible to the next.
            return 200, self._context.copy().run(self._call, text, fields)
        except InputError as reason:
            return reason.status, error(reason.code, str(reason))
        except AnswerError as reason:
            log(str(reason))
            return 500, error(reason.code, str(reason))
        except BaseException as raised:  # a driver that calls sys.exit() must not end the thread
            return _failure(raised)

    def _call(self, text: str, fields: dict[str, Any] | None) -> bytes:
        """Return the answer of `run()`. Raises what the driver raises, InputError or AnswerError."""
        try:
            result = self._run(text) if fields is None else self._run(**fields)
            if type(result) not in PLAIN:
                result = self._finish(result)
            return encode(result, self._answer_max_bytes)
        except json.JSONDecodeError:
            parse(text)  # raises InputError if the client, not the driver, is the cause
            raise

    def _finish(self, result: Any, context: Context | None = None) -> Any:
        """Return `result`, or what it returns if it is a coroutine or another awaitable.

        It runs in `context`, or in a copy of the current one.
        """
        if not inspect.isawaitable(result):
            return result
        loop = self._loop if self._loop and not self._loop.is_closed() else self._open_loop()
        task = loop.create_task(_await(result), context=context)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if task.done() and not task.cancelled():
                task.exception()  # otherwise asyncio logs that it was never retrieved
            raise

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        """Create the event loop of the driver's thread, which asynchronous drivers run in."""
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        return self._loop


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _check_generator(function: Callable[..., Any], name: str, advice: str) -> None:
    for found in (function, getattr(function, "__call__", None)):  # noqa: B004 - of an object with this method
        if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
            raise SetupError(f"The driver's {name} is a generator function. {advice}")


def _mismatch(function: Callable[..., Any], *arguments: Any, **fields: Any) -> str:
    """Return why `function` can't be called like this, "" if it can or that is unknown."""
    try:
        # A wrapper is judged by its own parameters: those of the function in it may differ.
        signature = inspect.signature(function, follow_wrapped=False)
        shown = shorten(f"{getattr(function, '__name__', 'it')}{signature}", 200)
    except Exception:  # a built-in function, or parameters that can't be shown
        return ""
    try:
        signature.bind(*arguments, **fields)
    except TypeError as reason:
        return f"{shown} doesn't accept that: {reason}"
    return ""


def _undecodable(reason: UnicodeDecodeError) -> str:
    advice = "Send UTF-8, or name the encoding in the header, such as Content-Type: text/plain; charset=latin-1."
    return f"The body is not {reason.encoding.upper()} text: {reason}. {advice}"


@lru_cache(64)
def _codec(content_type: bytes) -> str:
    """Return Python's name of the character set in a Content-Type header, "" if it has none. Raises InputError."""
    match = re.search(rb"""charset\s*=\s*["']?([^\s;"',]+)""", content_type, re.IGNORECASE)
    if not match:
        return ""
    name = match[1].decode("latin-1")
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        codec = None
    if codec is None or not codec._is_text_encoding or codec.name in REFUSED_CODECS:
        message = f"The character set {name!r} in Content-Type isn't supported. Send the body as UTF-8."
        raise InputError(message, 415, "UnsupportedCharset")
    return codec.name


def _failure(raised: BaseException) -> tuple[int, bytes]:
    """Log an exception of the driver, and return the response to its request."""
    try:
        log_exception(raised)
        return 500, error("DriverFailed", describe(raised))
    except BaseException:  # out of memory, or at the limit of recursion
        return 500, UNKNOWN_FAILURE
