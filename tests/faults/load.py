"""Simulated users of a real site over HTTP, who record their requests and which of them the site acknowledged."""

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from tests.doubles.mms import MMS
from tests.site import Site

PASSWORD = "correct horse battery"
OPEN = ("queued", "sending", "not_started", "running", "uncertain")


@dataclass
class SentRequest:
    """Request of a user. `acknowledged` means that the site answered with the page of the stored operation."""

    kind: str
    name: str
    acknowledged: bool


class Person:
    """Signed-in user with a browser, who retries while the site is briefly unavailable."""

    def __init__(self, site: Site, name: str = "ada") -> None:
        self.site, self.session = site, requests.Session()
        sign_in = f"{site.url}/sign-in/"
        self.session.get(sign_in, timeout=20)
        answer = self.session.post(sign_in, self._form(username=name, password=PASSWORD), timeout=20)
        assert answer.ok, answer.text

    def _form(self, **fields: Any) -> dict[str, Any]:
        return {"csrfmiddlewaretoken": self.session.cookies["csrftoken"], **fields}

    def submit(self, path: str, **fields: Any) -> bool:
        """Submit a form once. Return True if the site acknowledged it."""
        try:
            answer = self.session.post(
                f"{self.site.url}{path}", self._form(**fields), allow_redirects=False, timeout=30
            )
        except requests.RequestException:
            return False
        assert answer.status_code in {302, 303, 502, 503}, (path, fields, answer.status_code, answer.text[:2000])
        return answer.status_code < 400

    def look(self, path: str) -> tuple[int, float, str]:
        """Return status, seconds and text of a page. The status is 0 without an answer."""
        began = time.monotonic()
        try:
            answer = self.session.get(f"{self.site.url}{path}", timeout=30)
        except requests.RequestException:
            return 0, time.monotonic() - began, ""
        return answer.status_code, time.monotonic() - began, answer.text


class Load(threading.Thread):
    """Load generator that sends one request after another, with short pauses, until it is stopped."""

    def __init__(self, ask: Callable[[int], SentRequest], pause: float, seed: int = 7) -> None:
        super().__init__(daemon=True)
        self.ask, self.pause, self.random = ask, pause, random.Random(seed)
        self.asked: list[SentRequest] = []
        self.failure: BaseException | None = None
        self._enough = threading.Event()

    def run(self) -> None:
        try:
            while not self._enough.wait(self.pause * self.random.uniform(0.5, 1.5)):
                self.asked.append(self.ask(len(self.asked)))
        except BaseException as error:
            self.failure = error

    def stop(self) -> list[SentRequest]:
        self._enough.set()
        self.join(60)
        if self.failure:
            raise self.failure
        return self.asked


ADD = """
import json
from deployments.models import Cluster, HostingAccount, Image, Manifest, RegistryInfo
place = dict(subscription="s", resource_group="g", hosting_account="a")
account = HostingAccount.objects.create(name={name!r}, base_url={url!r}, token={token!r}, **place)
registry = RegistryInfo.objects.create(account=account, name="registry", location="registry.example")
cluster = Cluster.objects.create(account=account, name="cluster", kube_config="{{}}", pull_secret="puller")
manifest = Manifest.objects.create(account=account, mms_id="m-1", runtime_type="Python")
image = Image.objects.create(account=account, mms_id="i-1", manifest=manifest)
print(json.dumps([registry.pk, cluster.pk, manifest.pk, image.pk]))
"""


@dataclass
class RemoteAccount:
    """Hosting account of a test double, with what a build and a deployment need."""

    name: str
    registry: int
    cluster: int
    manifest: int
    image: int

    @property
    def url(self) -> str:
        return f"/accounts/{self.name}/"

    @classmethod
    def at(cls, site: Site, mms: MMS, name: str) -> "RemoteAccount":
        """Add the account. The server already has the models and manifests for builds."""
        mms.manifests["m-1"] = {"id": "m-1", "targetRuntime": {"runtimeType": "Python"}, "modelIds": [], "assets": []}
        mms.images["i-1"] = {"id": "i-1", "manifestId": "m-1", "imageType": "Docker", "description": "there already"}
        printed = site.manage("shell", "-v0", "-c", ADD.format(name=name, url=mms.url, token=mms.token))
        return cls(name, *json.loads(printed.splitlines()[-1]))

    def register(self, person: Person, name: str) -> SentRequest:
        fields = {"name": name, "url": f"http://files.example/{name}.pkl"}
        return SentRequest("register_model", name, person.submit(f"{self.url}models/new/", **fields))

    def build(self, person: Person, name: str) -> SentRequest:
        fields = {"manifest": self.manifest, "registry": self.registry, "description": name}
        return SentRequest("create_image", name, person.submit(f"{self.url}images/new/", **fields))

    def deploy(self, person: Person, name: str) -> SentRequest:
        fields = {"name": name, "image": self.image, "cluster": self.cluster}
        return SentRequest("create_service", name, person.submit(f"{self.url}services/new/", **fields))


def operations(site: Site, account: str = "") -> list[dict[str, Any]]:
    """Return the operations in the site's database, each with the name of its resource."""
    query = """
        SELECT o.id, o.kind, o.state, o.error_code, o.error_message, o.attempts, a.name AS account,
               o.requested_at, o.finished_at,
               COALESCE(m.name, s.name, i.description, '') AS about, COALESCE(m.mms_id, s.mms_id, i.mms_id) AS mms_id
        FROM deployments_operation o
        JOIN deployments_hostingaccount a ON a.id = o.account_id
        LEFT JOIN deployments_registeredmodel m ON m.id = o.model_id
        LEFT JOIN deployments_service s ON s.id = o.service_id
        LEFT JOIN deployments_image i ON i.id = o.image_id
    """
    database = sqlite3.connect(f"file:{site.data / 'db.sqlite3'}?mode=ro", uri=True, timeout=20)
    database.row_factory = sqlite3.Row
    try:
        rows = [dict(row) for row in database.execute(query)]
    finally:
        database.close()
    return [row for row in rows if not account or row["account"] == account]


def unsettled(site: Site) -> list[dict[str, Any]]:
    """Return the operations that haven't ended and don't wait for a user's decision."""
    return [row for row in operations(site) if row["state"] in OPEN and row["error_code"] != "NeedsDecision"]
