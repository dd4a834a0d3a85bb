"""Images built on a base image, which any container engine can pull and run."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from mms.images.runtimes import HOST_PYTHON
from tests.containers import PASSWORD, USER, Podman, missing, running_registry, write_base
from tests.journeys.api import FLOWERS, Api, call
from tests.site import Site, wait_until

pytestmark = pytest.mark.slow
# A hardened container: only /tmp is writable, no privileges, and another user than the image's.
HARDENED = ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges", "--user=1000:1000"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if programs := missing():
        pytest.skip(f"IMAGES WERE NOT TRIED IN A CONTAINER: {', '.join(programs)} not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as location:
        yield location


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Podman]:
    engine = Podman(tmp_path_factory.mktemp("podman"), registry)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def base(podman: Podman, registry: str) -> str:
    """Push a base image to the registry with podman. Return its reference."""
    tar, reference = podman.folder / "base.tar", f"{registry}/bases/python:{HOST_PYTHON}"
    write_base(tar)
    variables = ("PATH=/usr/local/bin:/usr/bin", "LD_LIBRARY_PATH=/usr/local/lib", f"PYTHON_VERSION={HOST_PYTHON}.0")
    podman("import", *(f"--change=ENV {variable}" for variable in variables), str(tar), reference)
    if reason := podman.why_not("run", "--rm", "--publish=127.0.0.1::8080", reference, "python3", "-c", "import ssl"):
        pytest.skip(f"IMAGES WERE NOT TRIED IN A CONTAINER: podman runs nothing here: {reason}")
    podman("push", f"--creds={USER}:{PASSWORD}", reference)
    return reference


@pytest.fixture(scope="module")
def based(tmp_path_factory: pytest.TempPathFactory, base: str) -> Iterator[Site]:
    """Start a site that builds on the base image."""
    data = tmp_path_factory.mktemp("based") / "data"
    site = Site(data, MMS_FETCH_ALLOW_PRIVATE="true", MMS_BASE_IMAGE=base).start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def api_of_based(based: Site, files_url: str) -> Api:
    return Api(based, files_url)


@pytest.fixture(scope="module")
def pushed(api_of_based: Api, registry: str) -> dict[str, str]:
    """Build the example over the API and push it to the registry."""
    api = api_of_based
    place = {"location": registry, "user": USER, "password": PASSWORD}
    return api.image(api.create_image(api.create_manifest(api.register_model()), place))


@pytest.fixture
def reference(pushed: dict[str, str], podman: Podman, registry: str) -> str:
    """Pull the image with podman."""
    reference = f"{registry}/local/iris@{pushed['digest']}"
    podman("pull", f"--creds={USER}:{PASSWORD}", reference)
    return reference


def test_a_hardened_container_scores(podman: Podman, reference: str) -> None:
    container = podman("run", "--detach", *HARDENED, "--publish=127.0.0.1::8080", reference)
    url = f"http://{podman('port', container, '8080/tcp')}"
    wait_until(lambda: _is_ready(podman, container, url), 60, "the container")
    status, answer, _ = call("POST", f"{url}/score", FLOWERS)
    assert status == 200
    assert answer["species"] == ["setosa", "virginica"]
    assert call("GET", f"{url}/swagger.json")[0] == 200
    podman("stop", "--time", "20", container)
    assert podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0", "SIGTERM must end it cleanly"


def test_the_same_image_runs_as_a_process_of_the_server(api_of_based: Api, pushed: dict[str, str]) -> None:
    status, answer = api_of_based.score(api_of_based.create_service("as-a-process", pushed["id"]))
    assert (status, answer["species"]) == (200, ["setosa", "virginica"])


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_the_same_from_the_layout_and_the_registry(
    based: Site, pushed: dict[str, str], registry: str
) -> None:
    layout = _inspect(f"oci:{based.data}/mms/oci:{pushed['id']}")
    remote = f"docker://{registry}/local/iris@{pushed['digest']}"
    there = _inspect("--tls-verify=false", f"--creds={USER}:{PASSWORD}", remote)
    assert layout["Digest"] == there["Digest"] == pushed["digest"]
    assert layout["Layers"] == there["Layers"]


def _inspect(*words: str) -> dict[str, str]:
    done = subprocess.run(["skopeo", "inspect", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _is_ready(podman: Podman, container: str, url: str) -> bool:
    assert podman("inspect", "--format", "{{.State.Running}}", container) == "true", podman("logs", container)
    try:
        return call("GET", url, timeout=5)[0] == 200
    except OSError:
        return False
