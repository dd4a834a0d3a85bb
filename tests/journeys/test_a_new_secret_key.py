"""Change of the secret key in three starts, after which the site continues with all its data."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.site import Site

pytestmark = pytest.mark.slow
OLD, NEW = "the key until now", "the key from now on"


@pytest.fixture
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("key") / "data", SECRET_KEY=OLD)
    yield site
    site.stop()


def column(data: Path, query: str) -> list[Any]:
    with sqlite3.connect(data / "db.sqlite3") as link:
        return [row[0] for row in link.execute(query)]


def test_a_site_continues_with_a_new_key(own_site: Site) -> None:
    site = own_site.start()
    site.manage("demo")
    upload = column(site.data, "SELECT url FROM deployments_registeredmodel")[0]
    token = column(site.data, "SELECT token FROM deployments_hostingaccount")
    site.stop()
    site.environment |= {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": OLD}
    site.start()
    assert "restart the site" in " ".join(site.manage("rotate_keys").split())
    site.stop()
    del site.environment["SECRET_KEY_FALLBACKS"]
    site.start()
    assert column(site.data, "SELECT token FROM deployments_hostingaccount") != token
    assert requests.get(upload, timeout=10).status_code == 200, (
        "earlier uploads must be readable at their registered URLs"
    )
    site.manage("demo")  # still with the same MMS token
    assert column(site.data, "SELECT count(*) FROM mms_token WHERE revoked_at IS NULL AND name = 'dashboard'") == [1]
