"""The main job from an installed wheel: fresh environment, per-user data folder, unrelated working directory."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.version import __version__
from tests.site import ROOT, Site

pytestmark = pytest.mark.slow
PROGRAM = "model-management-dashboard"
PACKAGES = ("dashboard", "deployments", "encryption", "mms", "netguard")
SHARED = ("templates", "static", "examples")  # in the wheel, these are in dashboard/share/
INSTALL_SECONDS = 180  # mostly for downloads, if uv's cache is empty


class InstalledSite(Site):
    """Site run with the installed command, with only its port set."""

    def __init__(self, environment: Path, home: Path) -> None:
        super().__init__(home / "share" / PROGRAM)
        del self.environment["DATA_DIR"]
        # Not below HOME: with the usual ~/.local/share, the paths of the sockets would be too long.
        self.environment |= {"HOME": str(home), "XDG_DATA_HOME": str(home / "share")}
        self.environment.pop("PYTHONPATH", None)
        self.command_line = (str(environment / "bin" / PROGRAM),)
        self.folder = home


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `make build` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a virtual environment with the locked dependencies and the wheel, without a path to this checkout."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    install = [*uv, "pip", "install", "--python", str(folder / "bin" / "python")]
    run(*uv, "venv", "--python", sys.executable, str(folder), cwd=folder.parent)
    run(*install, "--require-hashes", "--requirement", str(ROOT / "requirements" / "base.txt"), cwd=folder.parent)
    run(*install, "--no-deps", str(wheel), cwd=folder.parent)
    return folder


@pytest.fixture(scope="module")
def site(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledSite]:
    home = tmp_path_factory.mktemp("home")
    (home / "share").mkdir()
    site = InstalledSite(environment, home)
    site.start()
    yield site
    site.stop()


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_contains_every_file_of_the_site_and_no_tests(wheel: Path) -> None:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    tracked = [name for name in listed if (ROOT / name).exists()]
    expected = {name for name in tracked if name.startswith(tuple(f"{package}/" for package in PACKAGES))}
    expected |= {f"dashboard/share/{name}" for name in tracked if name.startswith(tuple(f"{top}/" for top in SHARED))}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected - held == set()
    about = f"model_management_dashboard-{__version__}.dist-info/"
    assert {name for name in held - expected if not name.startswith(about)} == set()
    assert f"{about}licenses/LICENSE" in held


def test_every_dependency_of_the_wheel_is_in_the_lock(environment: Path) -> None:
    """`pip check` fails if a requirement of the wheel is missing or installed in another version."""
    run(sys.executable, "-m", "uv", "pip", "check", "--python", str(environment / "bin" / "python"), cwd=environment)


def test_pages_and_static_files_are_served(site: InstalledSite) -> None:
    status, page = get(f"{site.url}/")  # follows the redirect to the sign-in page
    assert status == 200
    assert "<form" in page
    stylesheets = re.findall(r'href="(/static/[^"]+\.css)"', page)
    assert stylesheets
    for path in stylesheets:
        assert get(f"{site.url}{path}")[0] == 200
    assert get(f"{site.url}/static/nothing.css")[0] == 404


def test_the_demo_deploys_the_example_and_scores(site: InstalledSite) -> None:
    said = site.manage("demo")
    assert "create service" in said
    assert '"species": ["setosa", "virginica"]' in said


def test_messages_name_the_installed_command(site: InstalledSite) -> None:
    assert f"{PROGRAM} create_user NAME --role admin" in site.log.read_text()
    said = site.manage("doctor")
    assert f"{PROGRAM} prune" in " ".join(said.split())
    assert "manage.py" not in said
    assert f"Model Management {__version__}" in said
    help_text = site.manage("help", "create_user")
    assert help_text.startswith(f"usage: {PROGRAM} create_user")


def test_data_is_in_the_users_folder_and_a_stop_ends_every_process(site: InstalledSite) -> None:
    assert (site.data / "db.sqlite3").is_file()
    assert {path.name for path in site.folder.iterdir()} == {"share"}
    assert site.processes()
    assert site.stop() == 0
    assert site.processes() == []


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
