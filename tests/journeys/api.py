"""A plain HTTP client of the bundled MMS, as a script would be, without the project's client code."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.site import ROOT, Site

EXAMPLE = ROOT / "examples" / "iris"
FLOWERS = json.loads((EXAMPLE / "schema.json").read_text())["example"]
HERE = {"location": "oci://local", "user": "", "password": ""}
KUBE_CONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "process://local"}}]
users: [{name: me, user: {}}]
"""


def call(method: str, url: str, body: Any = None, token: str = "", timeout: float = 60) -> tuple[int, Any, Any]:
    """Send one JSON request. Return the status, the decoded body (None if empty) and the headers."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            content, status, headers = answer.read(), answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        content, status, headers = error.read(), error.code, dict(error.headers)
    return status, json.loads(content) if content.strip() else None, headers


class Api:
    """Hosting account over the REST API."""

    def __init__(self, site: Site, files_url: str) -> None:
        self.site = site
        self.base = f"{site.url}/api/subscriptions/local/resourceGroups/local/hostingAccounts/local"
        self.token = site.manage("create_token", "--account", "local")
        self.files_url = files_url

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
        return call(method, f"{self.base}/{path}?api-version=2017-06-01-privatepreview", body, self.token)

    def wait(self, headers: Any, seconds: float = 300) -> dict[str, Any]:
        """Poll the operation of a 202 response until it has succeeded. Return it."""
        until = time.monotonic() + seconds
        while True:
            _, operation, _ = self.ask("GET", f"operations/{headers['x-ms-request-id']}")
            if operation["state"] not in {"NotStarted", "Running"}:
                assert operation["state"] == "Succeeded", operation
                return operation
            assert time.monotonic() < until, f"still {operation['state']} after {seconds} s"
            time.sleep(0.2)

    def made(self, headers: Any) -> str:
        """Wait for the operation of a 202 response. Return the id of the created resource."""
        location: str = self.wait(headers)["resourceLocation"]
        return location.rstrip("/").split("?")[0].rsplit("/", 1)[1]

    def register_model(self, name: str = "iris") -> str:
        status, model, _ = self.ask("POST", "models", {"name": name, "url": f"{self.files_url}/model.pkl"})
        assert status == 201, model
        return str(model["id"])

    def create_manifest(self, model: str, driver: Path | str = "score.py") -> str:
        assets = [("score", str(driver), "text/x-python"), ("schema", "schema.json", "application/json")]
        body = {
            "modelType": "Registered",
            "modelIds": [model],
            "driverProgram": "score",
            "assets": [
                {"id": name, "url": f"{self.files_url}/{file}", "mimeType": mime, "unPack": False}
                for name, file, mime in assets
            ],
            "targetRuntime": {
                "runtimeType": "ScikitPython",
                "properties": {"pipRequirements": (EXAMPLE / "requirements.txt").read_text()},
            },
        }
        status, manifest, _ = self.ask("POST", "manifests", body)
        assert status == 200, manifest
        return str(manifest["id"])

    def create_image(self, manifest: str, registry: dict[str, str] = HERE) -> str:
        body = {"manifestId": manifest, "imageType": "Docker", "registryInfo": registry}
        status, answer, headers = self.ask("POST", "images", body)
        assert status == 202, answer
        return self.made(headers)

    def image(self, image: str) -> dict[str, Any]:
        status, found, _ = self.ask("GET", f"images/{image}")
        assert status == 200, found
        return dict(found)

    def create_service(self, name: str, image: str) -> str:
        body = {"name": name, "imageId": image, "kubeConfig": KUBE_CONFIG, "acrImagePullSecret": "local"}
        status, answer, headers = self.ask("POST", "services", body)
        assert status == 202, answer
        return self.made(headers)

    def service(self, service: str) -> dict[str, Any]:
        status, found, _ = self.ask("GET", f"services/{service}")
        assert status == 200, found
        return dict(found)

    def score(self, service: str, body: Any = FLOWERS) -> tuple[int, Any]:
        _, keys, _ = self.ask("GET", f"services/{service}/keys")
        status, answer, _ = call("POST", self.service(service)["scoringUri"], body, keys["primaryKey"])
        return status, answer
