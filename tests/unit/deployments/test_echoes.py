"""A server echoes every secret of an account everywhere in its responses; none of them is stored."""

import json
import logging
from typing import Any

import pytest
import redis
from django.apps import apps
from django.db import connection

from deployments.accounts.availability import client_for
from deployments.client import errors, wire
from deployments.client.http import host_of
from deployments.live import events
from deployments.mirror import refresh
from deployments.models import HostingAccount, Manifest, Operation, Service
from deployments.models.operation import State
from deployments.operations import submit
from deployments.resources import logs, scoring_keys
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, Connection
from tests.support.lifecycle import account_at, manifest_of, register, turn
from tests.support.spellings import spellings

pytestmark = pytest.mark.django_db(transaction=True)
SECRETS = {
    "token": "account-token-5521",
    "registry password": 'r€g"istry\\pass & <5521>/ü',
    "short registry password": "pw+5",
    "kubeconfig token": "kubetoken-21",
    "kubeconfig password": "kube pass' 5521",
    "kubeconfig key": "a2V5LWRhdGEtNTUyMQ==",
    "scoring key": "scoring-key-5521",
}
KUBE_CONFIG = json.dumps(
    {
        "current-context": "production",
        "clusters": [{"name": "c", "cluster": {"server": "https://k8s.example"}}],
        "users": [
            {"name": "u", "user": {"token": SECRETS["kubeconfig token"]}},
            {"name": "v", "user": {"username": "puller", "password": SECRETS["kubeconfig password"]}},
            {"name": "w", "user": {"client-key-data": SECRETS["kubeconfig key"]}},
        ],
    }
)
SPELLED = {f"{name}, {how}": text for name, secret in SECRETS.items() for how, text in spellings(secret).items()}
ECHO = " | ".join(SPELLED.values())  # in places without a limit of length


@pytest.fixture
def team(mms: MMS, live_redis: redis.Redis) -> HostingAccount:
    mms.token = SECRETS["token"]
    mms.extensions = True
    account = account_at(mms.url)
    account.replace_token(SECRETS["token"])
    for name in ("registry password", "short registry password"):
        login = {"location": "registry.example", "user": "puller", "password": SECRETS[name]}
        account.registries.create(name=name, **login)
    account.clusters.create(name="cluster", kube_config=KUBE_CONFIG, pull_secret="puller")
    Service.objects.create(account=account, mms_id="s-1", name="iris", scoring_key=SECRETS["scoring key"])
    return account


def stored(live_redis: redis.Redis, *more: str) -> str:
    """Return the rows of all tables as they are in the database, and the keys and values of Redis."""
    parts = list(more)
    with connection.cursor() as cursor:
        for model in apps.get_app_config("deployments").get_models():
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(model._meta.db_table)}")
            parts += [str(value) for row in cursor.fetchall() for value in row]
    for key in live_redis.scan_iter():
        parts += [str(key), (live_redis.dump(key) or b"").decode("utf-8", "replace")]
        if live_redis.type(key) == b"stream":
            parts.append(str(live_redis.xrange(key)))
    return "\n".join(parts)


def leaks(text: str) -> list[str]:
    """Return the secrets in the text and their encoding. JSON columns escape them a second time."""
    escaped = text.replace('\\"', '"').replace("\\\\", "\\")
    return [name for name, spelled in SPELLED.items() if spelled in text or spelled in escaped]


def build(account: HostingAccount) -> Operation:
    registry = account.registries.get(name="registry password")
    manifest = Manifest.objects.filter(account=account).first() or manifest_of(account)
    return submit.create_image(account, "ann", manifest=manifest, registry=registry)


@pytest.mark.parametrize("name", SECRETS)
def test_no_echo_in_an_error_is_stored(team: HostingAccount, mms: MMS, live_redis: redis.Redis, name: str) -> None:
    found = spellings(SECRETS[name])
    details: list[Any] = [{"code": text, "message": f"login {text} failed", "target": text} for text in found.values()]
    operation = turn(build(team))
    mms.end("Failed", {"code": SECRETS[name], "message": " | ".join(found.values()), "details": [*details, ECHO]})
    operation = turn(operation)
    assert operation.state == State.FAILED
    assert operation.error_code == "…"
    assert operation.error_message.count("…") == len(found)
    assert not leaks(stored(live_redis))


def test_no_echo_in_any_answer_to_a_write_is_stored(
    team: HostingAccount, mms: MMS, live_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = {"error": {"code": ECHO, "message": ECHO, "details": [{"message": ECHO, "target": ECHO}, ECHO]}}
    for status in (400, 401, 403, 404, 405, 409, 429, 500, 503):
        mms.plan("POST", "images", faults.status(status, error))
        operation = turn(build(team))
        Operation.objects.filter(pk=operation.pk).update(state=State.FAILED)
        HostingAccount.objects.update(token_refused=False, not_before=None)
    told = stored(live_redis, caplog.text)
    assert told.count("…") > 10
    assert not leaks(told)


def _send(account: HostingAccount) -> str:
    """Send a request of the account. Return the id of the operation that was accepted, or the error."""
    request = wire.NewImage("m", "", "registry.example", "puller", SECRETS["registry password"])
    with client_for(account) as client:
        try:
            return client.create_image(request, "r").operation_id
        except errors.MMSError as error:
            return f"{error} {error.failure}"


def _in_header(spelled: str) -> str:
    return spelled.encode("ascii", "replace").decode()


def test_no_echo_in_a_status_line_or_header_is_shown(
    team: HostingAccount, mms: MMS, caplog: pytest.LogCaptureFixture
) -> None:
    def status_line(connection: Connection, effect: Any) -> None:
        connection.wfile.write(f"HTTP/1.1 {line}\r\n\r\n".encode())
        connection.hang_up()

    caplog.set_level(logging.DEBUG)
    for name, spelled in SPELLED.items():
        line = _in_header(spelled)
        mms.plan("POST", "images", status_line)
        mms.plan("POST", "images", faults.status(302, Location=f"https://{line.replace('/', '')}.example/"))
        told = _send(team)
        assert told.startswith(f"{host_of(mms.url)} sent no usable response: "), name
        assert SECRETS[name.partition(",")[0]][-8:] not in told, name
        assert not leaks(_send(team)), name
    assert not leaks(caplog.text)


def test_an_id_with_a_secret_is_not_used(team: HostingAccount, mms: MMS) -> None:
    for name, spelled in SPELLED.items():
        last = _in_header(spelled)
        if not name.startswith("short") and not {"?", "#", "/"} & {*last}:
            mms.plan("POST", "images", faults.status(202, **{"x-ms-request-id": last}))
            assert _send(team) == "", name
            mms.plan("POST", "images", faults.status(202, **{"Operation-Location": f"https://h/operations/{last}"}))
            assert _send(team) == "", name
    mms.plan("POST", "images", faults.status(202, **{"x-ms-request-id": "0a1b-pw+5-2c3d"}))
    assert _send(team) == "0a1b-pw+5-2c3d", "a short secret may be part of an id by accident"


def test_no_echo_in_a_state_is_stored(team: HostingAccount, mms: MMS, live_redis: redis.Redis) -> None:
    operation = turn(build(team))
    for name, spelled in [*SPELLED.items()][::3]:
        mms.operations[operation.mms_operation_id]["state"] = spelled
        operation = turn(operation)
        assert operation.error_code == "UnknownState", name
        assert "…" in operation.error_message, name
        assert not leaks(operation.error_message), name
    assert not leaks(stored(live_redis))


def test_no_echo_in_a_list_is_stored(
    team: HostingAccount, mms: MMS, live_redis: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for number, (name, spelled) in enumerate(SPELLED.items()):
        more: dict[str, Any] = {
            "description": f"x {spelled}",
            "tags": [spelled],
            "mimeType": spelled,
            "url": f"https://f/?a={spelled}",
        }
        mms.add_model(spelled if len(spelled) < 200 else f"m{number}", **more)
        revision = {"number": 1, "imageId": "i", "state": spelled, "detail": spelled, "createdAt": spelled}
        health: dict[str, Any] = {"health": spelled[:32], "healthDetail": f"died: {spelled}", "revisions": [revision]}
        mms.add_service(f"s{number} {spelled}", state=spelled[:64], scoringUri=f"https://s/{spelled}", **health)
        manifest = {"id": f"m-{number}", "driverProgram": spelled, "description": spelled, "modelIds": [spelled]}
        asset = {"id": spelled, "url": spelled, "mimeType": spelled}
        runtime = {"runtimeType": spelled, "properties": {spelled: spelled, "pipRequirements": spelled}}
        mms.manifests[f"m-{number}"] = manifest | {"assets": [asset], "targetRuntime": runtime}
        info = {"location": spelled, "user": spelled, "password": spelled}
        image = {"id": f"i-{number}", "registryInfo": info, "description": spelled, "digest": spelled[:100]}
        mms.images[f"i-{number}"] = image | {"imageType": spelled[:32], "manifestId": spelled}
        mms.models[f"id-{number}"] = {"id": spelled, "name": f"by id {name}"}
    with client_for(team) as client:
        for noun in refresh.LISTS:
            refresh._refresh_list(team, noun, client)
    assert Service.objects.count() > len(SPELLED) / 2
    told = stored(live_redis, caplog.text)
    assert not [name for name in leaks(told) if not name.startswith("short")]
    columns = Service.objects.values_list("name", "state", "health", "health_detail", "revisions")
    assert not leaks(str([str(row) for row in columns])), "short secrets too, except in ids and URLs"


def test_no_echo_in_a_log_is_stored(team: HostingAccount, mms: MMS, live_redis: redis.Redis) -> None:
    operation = turn(build(team))
    lines = [f"2026-11-27 pushing with {spelled} to registry.example" for spelled in SPELLED.values()]
    long = [f"{'x' * (4000 - len(spelled) // 2)}{spelled}{'y' * 30_000}" for spelled in [*SPELLED.values()][::5]]
    mms.logs[operation.mms_operation_id] = "\n".join([*lines, *long, f"last {ECHO}"]).encode()
    mms.end()
    turn(operation)
    key = events.operation_log_key(operation)
    found = events.read_log(key).lines
    assert len(found) >= len(lines)
    assert not leaks("\n".join(found))
    assert not leaks(stored(live_redis))


def test_a_secret_in_an_endless_line_is_not_divided(team: HostingAccount, mms: MMS, live_redis: redis.Redis) -> None:
    """A line is stored in parts while it is written; a secret at the end of a part isn't cut in two."""
    service = Service.objects.get(name="iris")
    secret, text = SECRETS["registry password"], ""
    with client_for(team) as client:
        for length in range(19_000, 26_000, 160):
            text += "z" * (length - len(text) % 7) + secret
            mms.logs["s-1"] = text.encode()
            logs.fetch_service_log(service, client)
    told = "".join(events.read_log(events.service_log_key(service)).lines)
    assert told.count("z") > 100_000
    assert "istry" not in told
    assert "5521" not in told


def test_a_scoring_key_that_is_another_secret_is_not_stored(team: HostingAccount, mms: MMS) -> None:
    service = Service.objects.get(name="iris")
    Service.objects.update(scoring_uri="https://s.example/score")
    service.refresh_from_db()
    mms.services["s-1"] = {"id": "s-1"}
    for key, expected in (
        (SECRETS["scoring key"], SECRETS["scoring key"]),
        ("renewed-key", "renewed-key"),
        (SECRETS["registry password"], None),
    ):
        mms.plan("GET", "keys", faults.status(200, {"primaryKey": key}))
        with client_for(team) as client:
            assert scoring_keys.fetch(service, client)
        assert Service.objects.get(pk=service.pk).scoring_key == expected


def test_secrets_are_decrypted_only_when_they_change(
    team: HostingAccount, mms: MMS, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    from deployments.accounts import known_secrets

    first = known_secrets.known_secrets(team)
    decrypted: list[Any] = []
    decrypt = known_secrets._decrypt
    monkeypatch.setattr(known_secrets, "_decrypt", lambda value: decrypted.append(value) or decrypt(value))
    with django_assert_num_queries(1):
        assert known_secrets.known_secrets(team) is first
    assert not decrypted
    registry = team.registries.get(name="registry password")
    registry.password = "another-password"
    registry.save()
    later = known_secrets.known_secrets(team)
    assert len(decrypted) == 1
    assert {"another-password", SECRETS["registry password"]} <= later.all.secrets, "open operations used the former"


def test_a_weak_password_does_not_keep_an_operation_from_its_resource(
    team: HostingAccount, mms: MMS, live_redis: redis.Redis
) -> None:
    registry = team.registries.get(name="short registry password")
    registry.password = "iris"
    registry.save()
    mms.plan("POST", "models", faults.lose_answer)
    operation = turn(register(team, description="the iris model"))
    assert operation.state == State.UNCERTAIN
    mms.extensions = False
    HostingAccount.objects.update(idempotent_kinds={}, not_before=None)
    operation = turn(operation)
    assert operation.state == State.SUCCEEDED
    assert len(mms.models) == 1
