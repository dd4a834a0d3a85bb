"""Coroutines in tests. A process that runs browser tests has an event loop in its main thread."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_thread(call: Callable[[], Result]) -> Result:
    """Return the result of a function that starts an event loop, called in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of the coroutine, run by an event loop in a thread of its own."""
    return in_thread(lambda: asyncio.run(coroutine))
