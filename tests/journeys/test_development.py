"""`make dev`: changes of templates, static files and Python code take effect without a manual restart."""

import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import ROOT, Site, wait_until

pytestmark = pytest.mark.slow
WORKERS = ("site:worker", "site:mms-worker", "site:beat")
RELOAD_SECONDS = 60  # on a busy machine; usually 5


class DevelopmentSite(Site):
    """Site run by `manage.py dev` from a copy of the code that the test can change."""

    command = "dev"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "data", RELOAD="true")
        self.folder = folder / "code"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if not name.startswith(("tests/", "docs/")):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.folder / name)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def read(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def pids(self) -> dict[str, str]:
        return {name: self.supervisorctl("pid", name) for name in WORKERS}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevelopmentSite]:
    running = DevelopmentSite(tmp_path_factory.mktemp("dev"))
    running.start()
    yield running
    running.stop()


def test_it_has_sample_data_and_explains_how_to_sign_in(site: DevelopmentSite) -> None:
    said = wait_until(lambda: re.search("Sign in as admin .* with the password (.+)", site.log.read_text()), 10, "it")
    assert said[1] == (site.data / "sample_password").read_text()
    assert (site.data / "sample_password").stat().st_mode & 0o077 == 0


def test_a_changed_template_shows_in_the_next_request(site: DevelopmentSite) -> None:
    assert "Changed just now" not in site.read("/sign-in/")
    site.edit("templates/base.html", "</body>", "<p>Changed just now</p></body>")
    assert "Changed just now" in site.read("/sign-in/")


def test_a_changed_static_file_shows_in_the_next_request(site: DevelopmentSite) -> None:
    address = re.findall(r'href="(/static/[^"]+\.css)"', site.read("/sign-in/"))[0]
    name = address.removeprefix("/static/")
    text = site.read(address)
    (site.folder / "static" / name).write_text(f"/* changed just now */\n{text}")
    assert site.read(address) == f"/* changed just now */\n{text}"


def test_changed_python_restarts_the_web_server_and_the_workers(site: DevelopmentSite) -> None:
    before = site.pids()
    site.edit("dashboard/urls.py", "urlpatterns = [", 'urlpatterns = [\n    path("changed/", health.healthz),')

    def is_served() -> bool:
        try:
            return '"ok"' in site.read("/changed/")
        except OSError:  # 404, or no response yet
            return False

    def are_restarted() -> bool:
        now = site.pids()
        return all(now[name] not in {before[name], "0"} for name in WORKERS)

    wait_until(is_served, RELOAD_SECONDS, "the new page")
    wait_until(are_restarted, RELOAD_SECONDS, "new workers")
    wait_until(site.works, RELOAD_SECONDS, "a healthy site")


def test_code_that_fails_to_import_is_reported_and_recovers_once_it_is_fixed(site: DevelopmentSite) -> None:
    site.edit("deployments/apps.py", "class", "broken = \nclass")
    wait_until(lambda: "SyntaxError" in site.log.read_text(), RELOAD_SECONDS, "the error in the terminal")
    site.edit("deployments/apps.py", "broken = \nclass", "class")
    wait_until(lambda: site.health()[0] == 200, RELOAD_SECONDS, "a healthy site")


def test_it_leaves_no_process_running(site: DevelopmentSite) -> None:
    site.stop()
    wait_until(lambda: not site.processes(), 15, f"no process: {site.processes()}")
