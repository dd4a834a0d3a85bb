"""Pages work and stay fast while Redis is down."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.live import redis
from tests.support.clock import quiet_seconds
from tests.support.people import make_cast, make_lab

pytestmark = pytest.mark.django_db


@pytest.fixture
def no_redis(settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    redis.connection.cache_clear()
    monkeypatch.setattr(redis, "_down_until", 0.0)
    yield
    redis.connection.cache_clear()


def test_every_page_works_without_redis(no_redis: None) -> None:
    lab = make_lab()
    viewer = make_cast(lab.account).viewer
    started = time.monotonic()
    for noun in ("model", "asset", "manifest", "image", "service", "operation"):
        for url in (f"{lab.url}{noun}s/", f"{lab.url}{noun}s/{getattr(lab, noun).pk}/"):
            page = viewer.get(url)
            assert page.status_code == 200
            assert 'data-position="0"' in page.text
    assert viewer.get(lab.url).status_code == 200
    assert quiet_seconds(time.monotonic() - started) < 5
