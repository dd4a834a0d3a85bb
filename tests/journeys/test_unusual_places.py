"""A site on an IPv6 address, with a data folder whose name needs quoting, and uploads with realistic names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.api import Api
from tests.site import Site

pytestmark = pytest.mark.slow
FOLDER = "a #b ;[c] %d 'é'?"
MODEL = "Modèle final (v2).pkl"
DRIVER = (
    f'def init():\n    global text\n    text = open("{MODEL}").read()\n\n\ndef run(body):\n    return text + body\n'
)
STORE = """
import sys
from dashboard.files.store import IncomingFile
file = IncomingFile()
file.write([sys.stdin.buffer.read()])
print(file.store({name!r}).url)
"""


class IPv6Site(Site):
    """Site that listens on ::1."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, HOST="::1")
        self.url = f"http://[::1]:{self.port}"
        self.gateway_url = f"http://[::1]:{self.gateway_port}"


@pytest.fixture
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = IPv6Site(tmp_path_factory.mktemp("u") / FOLDER).start()  # a short path, for the sockets
    yield site
    site.stop()


def store(site: Site, name: str, content: str) -> str:
    """Store a file as an upload does. Return its URL."""
    return site.manage("shell", "-c", STORE.format(name=name), stdin=content).splitlines()[-1]


def test_a_model_is_deployed_and_serves_after_a_restart(unusual: Site) -> None:
    assert sorted(unusual.data.parent.iterdir()) == [unusual.data, unusual.log]
    api = Api(unusual, "")
    url = store(unusual, MODEL, "works: ")
    assert url.startswith(f"{unusual.url}/files/")
    status, model, _ = api.ask("POST", "models", {"name": "unusual", "url": url})
    assert status == 201, model
    driver = store(unusual, "score.py", DRIVER)
    body = {
        "modelType": "Registered",
        "modelIds": [model["id"]],
        "driverProgram": "score",
        "assets": [{"id": "score", "url": driver, "mimeType": "text/x-python", "unPack": False}],
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
    }
    status, manifest, _ = api.ask("POST", "manifests", body)
    assert status == 200, manifest
    service = api.create_service("unusual", api.create_image(manifest["id"]))
    assert api.service(service)["scoringUri"].startswith(f"{unusual.gateway_url}/scoring/")
    assert api.score(service, "yes") == (200, 'works: "yes"')
    unusual.stop()
    unusual.start()
    assert api.score(service, "yes") == (200, 'works: "yes"')
    assert "site:web" in unusual.supervisorctl("status")
