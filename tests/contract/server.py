"""A minimal client. The tests, not this module, have what is sent and received."""

import time
import uuid
from typing import Any

import requests

# An ID that no server uses. Constant, so that all test processes have the same test names.
UNKNOWN_ID = "e5b2f0c4-7d1a-4c36-9a58-0b6f3d2c1a97"
API_VERSION = "2017-06-01-privatepreview"
KUBE_CONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: nobody}}]
clusters: [{name: here, cluster: {server: "process://local"}}]
users: [{name: nobody, user: {}}]
"""


class Server:
    """Hosting account of the server under test."""

    def __init__(self, url: str, token: str, subscription: str, resource_group: str, account: str) -> None:
        self.url, self.token = url.rstrip("/"), token
        self.path = f"/api/subscriptions/{subscription}/resourceGroups/{resource_group}/hostingAccounts/{account}"
        self.session = requests.Session()

    def send(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        """Send a request as in the reference, with api-version."""
        return self.raw(method, path, json=body, params={"api-version": API_VERSION, **query})

    def raw(self, method: str, path: str, headers: dict[str, str] | None = None, **how: Any) -> requests.Response:
        """Send a request with only the token."""
        sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        return self.session.request(method, f"{self.url}{self.path}/{path}", headers=sent, timeout=60, **how)

    def finished(self, accepted: requests.Response, seconds: float = 120) -> dict[str, Any]:
        """Poll the operation that a 202 names, as in the reference, and return it once it has ended."""
        assert accepted.status_code == 202, accepted.text
        until = time.monotonic() + seconds
        while True:
            operation: dict[str, Any] = self.send("GET", f"operations/{accepted.headers['x-ms-request-id']}").json()
            if operation["state"] not in {"NotStarted", "Running"}:
                return operation
            assert time.monotonic() < until, f"not finished after {seconds} s: {operation}"
            time.sleep(0.1)

    # Resources that tests of other resources need.

    def model(self, name: str = "", **fields: Any) -> dict[str, Any]:
        body = {"name": name or f"m-{uuid.uuid4().hex[:12]}", "url": "http://models.example/model.pkl", **fields}
        answer = self.send("POST", "models", body)
        assert answer.status_code == 201, answer.text
        return as_object(answer)

    def manifest(self, **fields: Any) -> dict[str, Any]:
        answer = self.send("POST", "manifests", {**self.manifest_body(), **fields})
        assert answer.status_code == 200, answer.text
        return as_object(answer)

    def manifest_body(self, **fields: Any) -> dict[str, Any]:
        return {
            "driverProgram": "score",
            "modelType": "Registered",
            "modelIds": fields.pop("modelIds", None) or [self.model()["name"]],
            "assets": [{"id": "score", "url": "http://models.example/score.py", "mimeType": "text/x-python"}],
            "targetRuntime": {"runtimeType": "Python", "properties": {}},
            **fields,
        }


def as_object(answer: requests.Response) -> dict[str, Any]:
    """Return the JSON object of a response."""
    found = answer.json()
    assert isinstance(found, dict), found
    return found


def image_body(manifest_id: str) -> dict[str, Any]:
    registry = {"user": "nobody", "location": "oci://local", "password": "hidden-word"}
    return {"manifestId": manifest_id, "imageType": "Docker", "registryInfo": registry}


def service_body(image_id: str) -> dict[str, Any]:
    name = f"s-{uuid.uuid4().hex[:12]}"
    return {"imageId": image_id, "name": name, "kubeConfig": KUBE_CONFIG, "acrImagePullSecret": "local"}


def targets(answer: requests.Response) -> set[str]:
    """Return the fields that an error names."""
    return {detail["target"] for detail in answer.json()["error"]["details"]}
