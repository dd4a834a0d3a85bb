"""README.md says what is true."""

import re
import subprocess

from django.conf import settings

README = (settings.BASE_DIR / "README.md").read_text()
SETTINGS = (settings.BASE_DIR / "dashboard" / "settings.py").read_text()


def test_the_table_names_every_setting_and_no_other():
    read = set(re.findall(r'(?:env_[a-z]+|environ\.get)\(\s*"([A-Z_]+)"', SETTINGS))
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert read == told


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (settings.BASE_DIR / link).exists()] == []


def test_every_target_and_command_it_names_exists():
    makefile = (settings.BASE_DIR / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    folders = ["dashboard", "deployments", "mms"]
    commands = {
        path.stem for app in folders for path in (settings.BASE_DIR / app / "management" / "commands").glob("[a-z]*.py")
    }
    assert set(re.findall(r"manage\.py ([a-z_]+)", README)) <= commands


def test_the_map_names_every_folder():
    listed = subprocess.run(["git", "ls-files"], cwd=settings.BASE_DIR, capture_output=True, text=True, check=True)
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line and not line.startswith(".")}
    assert [name for name in sorted(folders) if f"{name}/" not in README.split("## Where things are")[1]] == []
