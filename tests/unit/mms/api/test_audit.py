"""The audit log of changes through the MMS API and the token commands."""

import json
from io import StringIO
from typing import Any, cast

import pytest
import redis
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.core.management import call_command

from dashboard.audit.entries import entries_of
from dashboard.models import AuditEntry
from dashboard.ops.startup import bundled_account
from deployments.models import HostingAccount
from mms import audit, tokens
from mms.api.application import application
from mms.api.routes import ROUTES
from mms.models import Image, Manifest, Operation, Scope, Service, Token
from tests.contract.server import KUBE_CONFIG
from tests.support import loops

pytestmark = pytest.mark.django_db(transaction=True)
PREFIX = "/api/subscriptions/local/resourceGroups/local/hostingAccounts/local/"


class Client:
    """A client of the API with a token, whose requests don't need a web server."""

    def __init__(self, scope: Scope = Scope.WRITE, name: str = "nightly job") -> None:
        self.token = tokens.create_token(tokens.create_account("local", "local", "local"), name, scope)

    def send(self, method: str, path: str, body: Any = None, request_id: str = "") -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the response."""
        return loops.run(self._send(method, path, body, request_id))

    async def _send(self, method: str, path: str, body: Any, request_id: str) -> tuple[int, dict[str, Any]]:
        headers = [(b"authorization", f"Bearer {self.token}".encode()), (b"host", b"localhost")]
        if request_id:
            headers.append((b"x-ms-client-request-id", request_id.encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": PREFIX + path,
            "query_string": b"api-version=2017-06-01-privatepreview",
            "headers": headers,
            "scheme": "http",
            "client": ("203.0.113.7", 4711),
        }
        exchange: Any = cast(Any, ApplicationCommunicator)(application, scope)
        await exchange.send_input({"type": "http.request", "body": json.dumps(body or {}).encode()})
        start, end = await exchange.receive_output(30), await exchange.receive_output(30)
        return start["status"], json.loads(end["body"] or b"{}")


@pytest.fixture
def client(live_redis: redis.Redis) -> Client:
    return Client()


def last_entry() -> AuditEntry:
    entry = AuditEntry.objects.first()
    assert entry
    return entry


def model_body(name: str = "fraud") -> dict[str, Any]:
    return {"name": name, "url": "https://files.example/m.pkl?sig=not-to-be-seen"}


def manifest_body() -> dict[str, Any]:
    return {
        "driverProgram": "score.py",
        "modelType": "Registered",
        "modelIds": ["fraud"],
        "assets": [{"id": "score.py", "url": "https://files.example/score.py", "mimeType": "text/plain"}],
        "targetRuntime": {"runtimeType": "Python", "properties": {}},
    }


def image_body(manifest: Any) -> dict[str, Any]:
    registry = {"user": "nobody", "location": "oci://local", "password": "not-to-be-seen"}
    return {"manifestId": manifest, "imageType": "Docker", "registryInfo": registry}


def service_body(image: Any) -> dict[str, Any]:
    return {"imageId": str(image.id), "name": "fraud", "kubeConfig": KUBE_CONFIG, "acrImagePullSecret": "local"}


def built_image(client: Client) -> Image:
    """Create an image through the API, and store that its build has succeeded."""
    client.send("POST", "models", model_body())
    manifest = client.send("POST", "manifests", manifest_body())[1]
    client.send("POST", "images", image_body(manifest["id"]))
    image = Image.objects.get()
    Image.objects.update(digest="sha256:1")
    Operation.objects.update(state="Succeeded")
    return image


def test_every_change_is_recorded(client: Client) -> None:
    image = built_image(client)
    assert client.send("POST", "services", service_body(image))[0] == 202
    service = Service.objects.get()
    for method, path, body in (
        ("DELETE", f"operations/{Operation.objects.get(verb='create_service').id}", None),
        ("PUT", f"services/{service.id}", {"imageId": str(image.id), "acrImagePullSecret": "local"}),
        ("POST", f"services/{service.id}/regenerateKeys", {"keyType": "Primary"}),
        ("GET", f"services/{service.id}/keys", None),
        ("DELETE", f"services/{service.id}", None),
    ):
        assert client.send(method, path, body)[0] in {200, 202}, path
        Operation.objects.update(state="Succeeded")
    manifest = Manifest.objects.get()
    assert list(AuditEntry.objects.order_by("pk").values_list("action", "target"))[1:] == [
        ("register_model", "fraud v1"),
        ("create_manifest", f"manifest {manifest.id}"),
        ("create_image", f"image {image.id}"),
        ("create_service", "fraud"),
        ("cancel_operation", f"operation {Operation.objects.get(verb='create_service').id}"),
        ("update_service", "fraud"),
        ("regenerate_keys", "fraud"),
        ("get_keys", "fraud"),
        ("delete_service", "fraud"),
    ]
    recorded = set(AuditEntry.objects.values_list("action", flat=True))
    assert {route.name for route in ROUTES if route.is_audited} <= recorded
    token = Token.objects.get()
    for entry in AuditEntry.objects.filter(via="mms"):
        assert (entry.actor, entry.address) == (f"MMS token {token.pk} (nightly job)", "203.0.113.7")
        assert (entry.account_name, entry.result) == ("local", "done")
    everything = str(list(AuditEntry.objects.values()))
    assert "not-to-be-seen" not in everything
    assert service.primary_key not in everything


def test_reads_and_invalid_requests_are_not_recorded(client: Client) -> None:
    before = AuditEntry.objects.count()
    assert client.send("GET", "models")[0] == 200
    assert client.send("POST", "models", {"name": "not a name"})[0] == 400
    assert client.send("DELETE", "services/e5b2f0c4-7d1a-4c36-9a58-0b6f3d2c1a97")[0] == 404
    assert AuditEntry.objects.count() == before


def test_a_repeated_request_is_recorded_once(client: Client) -> None:
    assert client.send("POST", "models", model_body(), request_id="7")[0] == 201
    assert client.send("POST", "models", model_body(), request_id="7")[0] == 201
    entry = AuditEntry.objects.get(action="register_model")
    assert entry.after
    assert entry.after["client_request_id"] == "7"


def test_a_write_with_a_read_only_token_is_recorded_as_refused(live_redis: redis.Redis) -> None:
    reader = Client(Scope.READ, "reader")
    assert reader.send("POST", "models", model_body())[0] == 403
    entry = last_entry()
    assert (entry.action, entry.result, entry.via) == ("register_model", "refused", "mms")
    assert "(reader)" in entry.actor


def test_an_internal_error_is_recorded_as_failed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mms.api.routes.models._lock", broken)
    assert client.send("POST", "models", model_body())[0] == 500
    assert (last_entry().action, last_entry().result) == ("register_model", "failed")


def test_nothing_changes_if_the_entry_cannot_be_written(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(audit, "record", broken)
    for path, body in (("models", model_body()), ("manifests", manifest_body())):
        assert client.send("POST", path, body)[0] >= 400
    assert client.send("GET", "models")[1] == []  # type: ignore[comparison-overlap]


def test_the_commands_record_who_may_use_the_api() -> None:
    call_command("create_token", "--account", "team", "--create", "--name", "laptop", stdout=StringIO())
    number = Token.objects.get().pk
    call_command("revoke_token", str(number), stdout=StringIO())
    revoked, created = AuditEntry.objects.all()
    assert (created.action, created.via, created.account_name) == ("create_token", "command", "team")
    assert created.actor == "the operator of the site"
    assert created.target == f"MMS token {number} (laptop)"
    assert created.after == {"scope": "write", "expires": "never"}
    assert (revoked.action, revoked.target, revoked.result) == ("revoke_token", created.target, "done")


def test_operators_of_the_bundled_account_see_its_entries(client: Client) -> None:
    bundled_account.ensure()
    local = HostingAccount.objects.get()
    other = HostingAccount.objects.create(
        name="other",
        base_url=settings.MMS_URL,
        subscription="local",
        resource_group="local",
        hosting_account="local",
    )
    client.send("POST", "models", model_body())
    assert entries_of(frozenset({local.pk})).filter(action="register_model").exists()
    assert not entries_of(frozenset({other.pk})).exists()
