"""Examples from the docs and commands from pages, run with a real shell and Python against a running site."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import requests

from dashboard.api.routes import described
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.model import RegisterModelForm
from tests.site import ROOT, Site
from tests.support.lifecycle import present

PAGES = ("deploy/script-it.md", "reference/dashboard-api.md")
PAGE = "\n".join((ROOT / "docs" / page).read_text() for page in PAGES)
PASSWORD = "a phrase for tests"
NASTY = 'it\'s "quoted" $HOME `id` $(id) \\ €'


class Browser:
    """Session of a user who signed in with the form."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.session = site, requests.Session()
        self.send("/sign-in/", username=name, password=PASSWORD)

    def send(self, path: str, **form: str) -> str:
        page = self.session.get(f"{self.site.url}{'/tokens/' if 'new' in path and 'token' in path else path}").text
        form["csrfmiddlewaretoken"] = present(re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page))[1]
        answer = self.session.post(f"{self.site.url}{path}", form, headers={"Referer": self.site.url})
        answer.raise_for_status()
        return answer.text


@pytest.fixture(scope="module")
def browser(site: Site) -> Browser:
    site.manage(
        "create_user", "scripter", "--role", "scientist", "--account", "local", "--password-stdin", stdin=PASSWORD
    )
    return Browser(site, "scripter")


@pytest.fixture(scope="module")
def environment(site: Site, browser: Browser) -> dict[str, str]:
    page = browser.send("/tokens/new/", name="journey", scope="write", account="", days="7")
    token = present(re.search(r"dash_[\w-]{43}", page))[0]
    return {**os.environ, "DASHBOARD": site.url, "DASHBOARD_TOKEN": token}


def run(words: list[str], environment: dict[str, str], folder: Path = ROOT) -> str:
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def operations(site: Site, environment: dict[str, str]) -> list[dict[str, Any]]:
    token = {"Authorization": f"Bearer {environment['DASHBOARD_TOKEN']}"}
    answer = requests.get(f"{site.url}/v1/accounts/local/operations/?kind=register_model", headers=token, timeout=20)
    return answer.json()["operations"]


@pytest.mark.slow
def test_every_example_of_the_page_runs(site: Site, environment: dict[str, str]) -> None:
    examples = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) >= 5
    for language, text in examples:
        if language == "sh":
            for line in text.strip().splitlines():
                assert '"error": {' not in run(["sh", "-c", line.replace("curl -sS", "curl -sSf")], environment), line
        else:
            assert re.match(r"manifest \d+", run([sys.executable, "-c", text], environment))


@pytest.mark.slow
@pytest.mark.parametrize("language", ["curl", "python"])
def test_a_command_shown_by_a_form_works(
    language: str, site: Site, browser: Browser, environment: dict[str, str], tmp_path: Path
) -> None:
    name = f"by-{language}"
    form = {"name": name, "url": f"{site.url}/static/style.css", "description": NASTY, "do": "preview"}
    page = browser.send("/accounts/local/models/new/", **form)
    text = unescape(present(re.search(f'id="command-{language}"[^>]*>(.*?)</pre>', page, re.DOTALL))[1])
    words = ["sh", "-c", text] if language == "curl" else [sys.executable, "-c", text]
    assert "uid=" not in run(words, environment, tmp_path)
    made = next(operation for operation in operations(site, environment) if operation["about"]["name"].startswith(name))
    token = {"Authorization": f"Bearer {environment['DASHBOARD_TOKEN']}"}
    row = requests.get(f"{site.url}/v1/accounts/local/models/{made['about']['id']}/", headers=token, timeout=20).json()
    assert row["description"] == NASTY
    assert made["requested_by"] == "scripter"


@pytest.mark.slow
def test_each_api_accepts_only_its_own_tokens(site: Site, environment: dict[str, str]) -> None:
    of_the_mms = {"Authorization": f"Bearer {site.manage('create_token', '--account', 'local')}"}
    ours = {"Authorization": f"Bearer {environment['DASHBOARD_TOKEN']}"}
    models = f"{site.url}/api/subscriptions/local/resourceGroups/local/hostingAccounts/local/models"
    assert requests.get(models, headers=of_the_mms, timeout=20).status_code == 200
    assert requests.get(models, headers=ours, timeout=20).status_code == 401
    assert requests.get(f"{site.url}/v1/", headers=ours, timeout=20).status_code == 200
    refused = requests.get(f"{site.url}/v1/", headers=of_the_mms, timeout=20)
    assert refused.status_code == 401
    assert "MMS token" in refused.json()["error"]["message"]


def test_the_page_names_every_field_of_every_kind() -> None:
    for form in (RegisterModelForm, AddAssetForm):
        for field in form.base_fields:
            assert f"`{field}`" in PAGE, field


def test_the_page_names_every_route() -> None:
    for route in described()["routes"]:
        last = route["path"].rstrip("/").rpartition("/")[2]
        known = last in {"v1", "accounts", "{account}", "{pk}"}
        assert known or f"{last}/" in PAGE or f"{last}s" in PAGE or last in PAGE, route


CLIENT = """
import os

from generated import AuthenticatedClient
from generated.api.models import list_models
from generated.api.operations import create_operation
from generated.models import ListModelsSort, ModelList, OperationDetail, RegisterModel

site = os.environ["DASHBOARD"]
client = AuthenticatedClient(site, os.environ["DASHBOARD_TOKEN"], raise_on_unexpected_status=True)
model = RegisterModel(kind="register_model", name="by-client", url=f"{site}/static/style.css", tags=["red"])
asked = create_operation.sync("local", client=client, body=model)
assert isinstance(asked, OperationDetail), asked
found = list_models.sync("local", client=client, q="by-client", sort=ListModelsSort.ADDED_DESCENDING)
assert isinstance(found, ModelList), found
print([(model.name, model.tags, model.badge.since.year) for model in found.models])
"""


@pytest.mark.slow
def test_a_client_generated_from_the_document_works(site: Site, environment: dict[str, str], tmp_path: Path) -> None:
    generator = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the generator formats its output with ruff
    document = f"{site.url}/v1/openapi.json"
    run([*generator, "--url", document, "--output-path", "generated"], {**environment, "PATH": path}, tmp_path)
    assert "('by-client', ['red'], 20" in run([sys.executable, "-c", CLIENT], environment, tmp_path)


@pytest.mark.slow
def test_many_concurrent_identical_requests_create_one_operation(site: Site, environment: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {environment['DASHBOARD_TOKEN']}", "Idempotency-Key": "all at once"}
    body = {"kind": "register_model", "name": "at-once", "url": f"{site.url}/static/style.css"}

    def send(_: int) -> requests.Response:
        return requests.post(f"{site.url}/v1/accounts/local/operations/", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    made = [found for found in operations(site, environment) if found["about"]["name"].startswith("at-once")]
    assert len(made) == 1
