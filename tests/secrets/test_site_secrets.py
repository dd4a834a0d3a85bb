"""Leak test of the dashboard: unique values in every secret field, each used once, then a full search."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import requests

from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.faults.browserless import TOKEN, Visitor
from tests.site import Site, wait_until
from tests.support.spellings import spellings

pytestmark = pytest.mark.slow
ACCOUNT = {
    "subscription": "s",
    "resource_group": "g",
    "hosting_account": "a",
    "api_version": "2017-06-01-privatepreview",
}
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "{server}"}}}}]
users: [{{name: u, user: {{token: "{token}"}}}}]
"""


class Planted(dict[str, str]):
    """Unique values of the secret fields, generated on first use."""

    def __missing__(self, name: str) -> str:
        self[name] = f"planted-{secrets.token_hex(12)}"
        return self[name]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Planted, list[str]]]:
    """Run a site at LOG_LEVEL=DEBUG, enter and use every secret, and record the pages."""
    site = Site(tmp_path_factory.mktemp("secrets") / "data", LOG_LEVEL="DEBUG").start()
    planted, pages = Planted(), list[str]()
    try:
        with MMS(auto=True, extensions=True) as mms:
            mms.token = planted["account token"]
            use(site, mms, planted, pages)
            yield site, planted, pages
    finally:
        site.stop()


class Person(Visitor):
    """User whose pages are all recorded."""

    def __init__(self, site: Site, name: str, role: str, planted: Planted, pages: list[str]) -> None:
        self.password, self.pages = planted[f"password of {name}"], pages
        super().__init__(site, name, role)

    def get(self, path: str) -> requests.Response:
        answer = super().get(path)
        self.pages.append(answer.text)
        return answer

    def _send(self, path: str, fields: dict[str, str]) -> requests.Response:
        answer = super()._send(path, fields)
        self.pages.append(answer.text)
        return answer


def use(site: Site, mms: MMS, planted: Planted, pages: list[str]) -> None:
    admin = _administrator(site, planted, pages)
    stranger = requests.Session()
    form = stranger.get(f"{site.url}/sign-in/").text
    found = TOKEN.search(form)
    assert found
    wrong = {"username": "sam", "password": planted["wrong password"], "csrfmiddlewaretoken": found[1]}
    pages.append(stranger.post(f"{site.url}/sign-in/", data=wrong).text)

    far = ACCOUNT | {"base_url": mms.url, "sign_in": "token", "authority": "https://authority.example"}
    _send(admin, "/add-account/", far | {"name": "far", "token": planted["refused token"], "subscription": ""}, 422)
    _send(admin, "/add-account/", far | {"name": "far", "token": planted["account token"]}, 302)
    settings = "/accounts/far/settings"
    registry = {"name": "acr", "location": "127.0.0.1:9/team", "user": "puller"}
    _send(admin, f"{settings}/registries/new/", registry | {"password": planted["refused password"], "name": ""}, 422)
    _send(admin, f"{settings}/registries/new/", registry | {"password": planted["registry password"]}, 302)
    cluster = {"name": "aks", "pull_secret": "acr"}
    broken = KUBECONFIG.format(server="no address", token=planted["refused kubeconfig"])
    _send(admin, f"{settings}/clusters/new/", cluster | {"kube_config": broken}, 422)
    whole = KUBECONFIG.format(server="https://127.0.0.1:9", token=planted["kubeconfig"])
    _send(admin, f"{settings}/clusters/new/", cluster | {"kube_config": whole}, 302)
    cloud = {"name": "cloud", "sign_in": "entra", "tenant": "team.example", "client_id": "c", "scope": "mms/.default"}
    cloud |= {"authority": "https://127.0.0.1:9", "client_secret": planted["client secret"]}
    _send(admin, "/add-account/", far | cloud, 302)
    _use_a_token(admin, planted)
    for path in ("", "/registries/1/", "/registries/2/", "/clusters/1/", "/clusters/2/"):
        admin.get(f"{settings}/{path.strip('/')}/".replace("//", "/"))

    _do_the_whole_job(admin, mms, planted)


def _use_a_token(person: Person, planted: Planted) -> None:
    """Create a token on the page that shows it, and use it in a call."""
    made = {"name": "nightly", "scope": "write", "account": "", "days": "30"}
    answer = person.post("/tokens/new/", made, form="/tokens/")
    found = re.search(r"dash_[\w-]{30,}", answer.text)
    assert found, answer.text
    planted["API token"] = found[0]
    person.pages.remove(answer.text)
    called = {"Authorization": f"Bearer {planted['API token']}"}
    for path in ("accounts/", "accounts/far/operations/", "no/such/"):
        person.pages.append(requests.get(f"{person.site.url}/v1/{path}", headers=called, timeout=30).text)


def _administrator(site: Site, planted: Planted, pages: list[str]) -> Person:
    Person(site, "sam", "scientist", planted, pages)
    site.manage("create_user", "ann", "--role", "admin", "--password-stdin", stdin=planted["password of ann"])
    admin = Person.__new__(Person)
    admin.site, admin.name, admin.session = site, "ann", requests.Session()
    admin.password, admin.pages = planted["password of ann"], pages
    assert admin.sign_in().status_code == 302
    return admin


def _send(person: Person, path: str, fields: dict[str, str], status: int) -> None:
    answer = person.post(path, fields)
    assert answer.status_code == status, (path, answer.text)


def _do_the_whole_job(person: Person, mms: MMS, planted: Planted) -> None:
    """Run the whole workflow with the forms. The test double receives the real secrets."""
    here = "/accounts/far"
    _send(person, f"{here}/models/new/", {"name": "iris", "url": "https://files.example/iris.pkl"}, 302)
    wait_until(lambda: mms.models, 30, "the model at the server")
    _send(person, f"{here}/assets/new/", {"name": "score", "url": "https://files.example/score.py"}, 302)
    manifest = {"models": "1", "assets": "1", "driver": "1", "runtime_type": "Python"}
    _retry_until_sent(person, f"{here}/manifests/new/", manifest)
    wait_until(lambda: mms.manifests, 30, "the manifest at the server")
    registry = _option(person, f"{here}/images/new/", "registry")
    _retry_until_sent(person, f"{here}/images/new/", {"manifest": "1", "registry": registry})
    wait_until(lambda: mms.images, 30, "the image at the server")
    cluster = _option(person, f"{here}/services/new/", "cluster")
    _retry_until_sent(person, f"{here}/services/new/", {"name": "live", "image": "1", "cluster": cluster})
    wait_until(lambda: mms.services, 30, "the service at the server")
    for page in ("models", "manifests", "images", "services", "operations"):
        person.get(f"{here}/{page}/")
    person.get(f"{here}/services/1/")
    _let_the_server_echo(person, mms, planted, registry)
    person.get("/audit/")
    person.get("/audit/?format=csv")
    said = str([request.body for request in mms.requests])
    assert planted["registry password"] in said, "the server must receive the secrets"
    assert planted["kubeconfig"] in said
    assert f"Bearer {planted['account token']}" in str([request.headers for request in mms.requests])


def _let_the_server_echo(person: Person, mms: MMS, planted: Planted, registry: str) -> None:
    """Make the server echo every secret that it knows, in every encoding and field, then view the results."""
    here, known = "/accounts/far", ("account token", "registry password", "kubeconfig")
    texts = [text for name in known for text in spellings(planted[name], "puller").values()]
    for number, text in enumerate(texts):
        mms.add_model(f"echo {number}", description=f"x {text}", tags=[text], mimeType=text)
        revision = {"number": 1, "state": text, "detail": text}
        mms.add_service(f"echo {number}", state=text[:64], healthDetail=text, health=text[:32], revisions=[revision])
    manifest = {"id": "echo", "driverProgram": texts[0], "description": " ".join(texts), "modelIds": texts}
    mms.manifests["echo"] = manifest | {"assets": [], "targetRuntime": {"properties": {text: text for text in texts}}}
    mms.auto = False
    operations = len(mms.operations)
    _send(person, f"{here}/images/new/", {"manifest": "1", "registry": registry}, 302)
    wait_until(lambda: len(mms.operations) > operations, 30, "the operation at the server")
    operation = [*mms.operations.values()][-1]
    mms.logs[operation["id"]] = "\n".join(["echoed log", *texts]).encode()
    details = [{"code": text, "message": text, "target": text} for text in texts]
    for text in texts:
        mms.plan("POST", "images", faults.status(400, {"error": {"code": text, "message": text, "details": details}}))
    mms.end("Failed", {"code": texts[0], "message": f"login {' '.join(texts)}", "details": details})
    called = {"Authorization": f"Bearer {planted['API token']}"}

    def shown(path: str) -> str:
        text = requests.get(f"{person.site.url}/v1/accounts/far/{path}", headers=called, timeout=30).text
        person.pages.append(text)
        return text

    wait_until(lambda: "failed" in shown("operations/"), 30, "the failed operation")
    _send(person, f"{here}/images/new/", {"manifest": "1", "registry": registry}, 302)
    wait_until(lambda: shown("operations/").count('"failed"') > 1, 30, "the refused operation")
    texts_of_lists = {"models": "echo ", "services": "echo ", "manifests": "…"}

    def mirrored() -> bool:  # lists that are viewed are refreshed within seconds
        return all(text in person.get(f"{here}/{noun}/").text for noun, text in texts_of_lists.items())

    wait_until(mirrored, 60, "the mirrored lists", every=0.5)
    found = re.findall(r'"id": "([0-9a-f-]{36})"', shown("operations/"))
    for page in ("models", "manifests", "images", "services", "operations", *(f"operations/{pk}" for pk in found)):
        person.get(f"{here}/{page}/")
        shown(f"{page}/")
        shown(f"{page}/log/")
    mms.auto = True


def _option(person: Person, path: str, field: str) -> str:
    page = person.get(path).text
    return page.partition(f'name="{field}"')[2].partition('<option value="')[2].partition('"')[0]


def _retry_until_sent(person: Person, path: str, fields: dict[str, str]) -> None:
    """Retry the form until a new resource can be selected, after the worker has mirrored it."""
    wait_until(lambda: person.post(path, fields).status_code == 302, 30, f"{path} to accept {fields}", every=0.5)


def files_of(site: Site) -> dict[str, bytes]:
    """Return all files that the site wrote: database, logs, Redis dump, temporary files, and files beside sockets."""
    found = [path for path in (*site.data.rglob("*"), site.log) if path.is_file() and "static" not in path.parts]
    return {str(path): path.read_bytes() for path in found}


def test_no_secret_leaks(used: tuple[Site, Planted, list[str]], record: Any) -> None:
    site, planted, pages = used
    places = {
        **files_of(site),
        **{f"page {number}": page.encode() for number, page in enumerate(pages)},
        **dict(redis_of(site)),
        **dict(command_lines(site)),
    }
    searched = {f"{name}, {how}": text for name in planted for how, text in spellings(planted[name], "puller").items()}
    found = [(name, place) for place, text in places.items() for name in searched if searched[name].encode() in text]
    assert found == []
    assert len(planted) >= 11
    assert len(pages) > 30
    record |= {"secrets": len(planted), "places searched": len(places)}


def redis_of(site: Site) -> Iterator[tuple[str, bytes]]:
    link = redis.Redis(unix_socket_path=str(site.data / "run" / "redis.sock"))
    for key in link.scan_iter():
        yield f"Redis {key!r}", key + bytes(link.dump(key) or b"")


def command_lines(site: Site) -> Iterator[tuple[str, bytes]]:
    processes: list[psutil.Process] = site.processes()
    assert len(processes) > 4
    for process in processes:
        yield f"process {process.pid}", Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_the_search_finds_secrets_that_are_present(used: tuple[Site, Planted, list[str]]) -> None:
    site, _, pages = used
    assert any(b"iris.pkl" in text for text in files_of(site).values())
    assert any("iris" in page for page in pages)
    for echo in ("echo ", "echoed log", "login …"):
        assert any(echo in page for page in pages), echo
