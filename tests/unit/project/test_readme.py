"""README.md and the reference of settings and commands match the code."""

import re
import subprocess

from django.conf import settings

from dashboard import environment

README = (settings.BASE_DIR / "README.md").read_text()
REFERENCE = settings.BASE_DIR / "docs" / "reference"
SETTINGS = (settings.BASE_DIR / "dashboard" / "settings.py").read_text()


def test_the_reference_of_settings_is_generated_from_the_code() -> None:
    """If this fails, run `make reference`."""
    assert (REFERENCE / "settings.md").read_text() == environment.reference()


def test_every_setting_of_the_reference_is_read() -> None:
    read = re.findall(r'environment\.(?:text|words|number|boolean)\(\s*"([A-Z_]+)"', SETTINGS)
    assert sorted(set(read)) == sorted(environment.VARIABLES)
    assert "environ.get" not in SETTINGS


def test_every_link_has_a_target() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (settings.BASE_DIR / link).exists()] == []


def every_command() -> set[str]:
    folders = ["dashboard", "deployments", "mms"]
    return {
        path.stem for app in folders for path in (settings.BASE_DIR / app / "management" / "commands").glob("[a-z]*.py")
    }


def test_every_target_and_command_it_names_exists() -> None:
    makefile = (settings.BASE_DIR / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert set(re.findall(r"manage\.py ([a-z_]+)", README)) <= every_command()


def test_the_reference_lists_every_command_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", (REFERENCE / "commands.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(every_command())


def test_the_list_of_folders_is_complete() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=settings.BASE_DIR, capture_output=True, text=True, check=True)
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line and not line.startswith(".")}
    assert [name for name in sorted(folders) if f"{name}/" not in README.split("## Where things are")[1]] == []
