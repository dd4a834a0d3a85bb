"""Memory that the worker returns to the operating system after a large list."""

import subprocess
import sys
from pathlib import Path

import pytest

from deployments.mirror import memory

ROOT = Path(__file__).parents[3]
MIB = 1024**2


# In a process of its own: the heap of this one may have free space from earlier tests.
LARGE_LIST = f"""
from deployments.mirror import memory
before = memory.resident_bytes()
with memory.given_back():
    # Below the threshold of mmap, so that they are on the heap, which the last one keeps from shrinking.
    parts = [bytearray(100_000) for _ in range(1000)]
    last = bytearray(100_000)
    assert memory.resident_bytes() - before > 80 * {MIB}
    parts.clear()
assert memory.resident_bytes() - before < 20 * {MIB}
assert last
"""


def test_freed_memory_is_returned_even_if_a_later_object_remains() -> None:
    if memory._trim() is None:
        pytest.skip("only glibc can give memory back")
    subprocess.run([sys.executable, "-c", LARGE_LIST], cwd=ROOT, check=True, timeout=60)


def test_memory_is_returned_after_an_error() -> None:
    with pytest.raises(ValueError, match="no list"), memory.given_back():
        raise ValueError("no list")
