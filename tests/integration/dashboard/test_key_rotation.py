"""After rotate_keys, nothing is encrypted with the previous SECRET_KEY and nothing needs it."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.core.management import CommandError, call_command

from dashboard.files import store
from dashboard.models import FormerFileKey
from dashboard.ops import rotate_keys
from deployments.models import Cluster, HostingAccount, RegistryInfo, Service
from encryption.check import encrypted_columns, encrypted_values
from tests.site import wait_until
from tests.support.people import make_lab

pytestmark = pytest.mark.django_db(transaction=True)
OLD, NEW = "the key until now", "the key from now on"


def use_keys(monkeypatch: pytest.MonkeyPatch, key: str, *fallbacks: str) -> None:
    """Use these keys like a process that starts with them. Fields derive theirs once."""
    monkeypatch.setattr(settings, "SECRET_KEY", key)
    monkeypatch.setattr(settings, "SECRET_KEY_FALLBACKS", list(fallbacks))
    for column in encrypted_columns():
        column.__dict__.pop("keys", None)
        column.__dict__.pop("f", None)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    for column in encrypted_columns():
        column.__dict__.pop("keys", None)
        column.__dict__.pop("f", None)


def fill() -> None:
    """Store a value in every encrypted column of the dashboard."""
    lab = make_lab()
    HostingAccount.objects.update(client_secret="the client secret")
    for at in range(rotate_keys.BATCH_ROWS + 5):
        RegistryInfo.objects.create(
            account=lab.account, name=f"registry {at}", location="r.example", password=f"pw {at}"
        )


def count_decryptable(key: str, column: Any) -> int:
    """Return how many stored values of the column the key decrypts."""
    monkey = pytest.MonkeyPatch()
    use_keys(monkey, key)
    opened = 0
    for _, encrypted in encrypted_values(column):
        try:
            Fernet(column.keys[0]).decrypt(encrypted.encode())
            opened += 1
        except InvalidToken:
            pass
    monkey.undo()
    column.__dict__.pop("keys", None)
    return opened


def rotate() -> str:
    said = StringIO()
    call_command("rotate_keys", stdout=said, stderr=said)
    return said.getvalue()


def test_rotated_secrets_need_only_the_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, OLD)
    fill()
    use_keys(monkeypatch, NEW, OLD)
    said = rotate()
    assert "Remove it from SECRET_KEY_FALLBACKS" in said
    columns = list(encrypted_columns())
    assert sum(count_decryptable(OLD, column) for column in columns) == 0
    use_keys(monkeypatch, NEW)
    assert HostingAccount.objects.get().token == "t"
    assert HostingAccount.objects.get().client_secret == "the client secret"
    assert {row.password for row in RegistryInfo.objects.all()} >= {"pw 0", f"pw {rotate_keys.BATCH_ROWS + 4}"}
    assert Cluster.objects.get().kube_config == "the cluster's kubeconfig"
    assert Service.objects.get().scoring_key == "the-service's-key"
    for column in columns:
        assert count_decryptable(NEW, column) == len(list(encrypted_values(column)))


def test_every_encrypted_field_of_every_app_is_rotated() -> None:
    found = {f"{column.model._meta.label}.{column.name}" for column in encrypted_columns()}
    assert found >= {
        "deployments.HostingAccount.token",
        "deployments.HostingAccount.client_secret",
        "deployments.RegistryInfo.password",
        "deployments.Cluster.kube_config",
        "deployments.Service.scoring_key",
        "mms.Image.registry_password",
        "mms.Service.kube_config",
        "mms.Service.primary_key",
        "mms.Service.secondary_key",
        "dashboard.FormerFileKey.key",
        "dashboard.SecondFactor.secret",
    }
    ours = Path(settings.BASE_DIR)
    sources = [path for app in ("dashboard", "deployments", "mms") for path in (ours / app).rglob("*.py")]
    written = sum(path.read_text().count(" = EncryptedTextField(") for path in sources)
    assert len(found) == written


def test_a_second_run_finds_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, OLD)
    fill()
    use_keys(monkeypatch, NEW, OLD)
    rotate()
    before = {column: list(encrypted_values(column)) for column in encrypted_columns()}
    assert rotate().startswith("Re-encrypted 0 secrets")
    assert {column: list(encrypted_values(column)) for column in encrypted_columns()} == before


def test_a_value_written_during_the_rotation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, OLD)
    fill()
    use_keys(monkeypatch, NEW, OLD)
    replace = rotate_keys._replace

    def overtaken(column: Any, pk: Any, encrypted: str, plain: bytes) -> int:
        if plain == b"t":
            HostingAccount.objects.update(token="another token")
        return replace(column, pk, encrypted, plain)

    monkeypatch.setattr(rotate_keys, "_replace", overtaken)
    rotate()
    assert HostingAccount.objects.get().token == "another token"


def test_undecryptable_values_are_reported_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, "a key that is lost")
    fill()
    encrypted = list(encrypted_values(HostingAccount._meta.get_field("token")))
    use_keys(monkeypatch, NEW, OLD)
    said = StringIO()
    with pytest.raises(CommandError, match="Keep SECRET_KEY_FALLBACKS"):
        call_command("rotate_keys", stdout=said, stderr=said)
    pk = HostingAccount.objects.get().pk
    assert f"deployments_hostingaccount token {pk}" in said.getvalue()
    assert encrypted[0][1] not in said.getvalue()
    assert list(encrypted_values(HostingAccount._meta.get_field("token"))) == encrypted


def test_uploads_registered_with_the_old_key_remain_available(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "0" * 64
    use_keys(monkeypatch, OLD)
    key = store.file_url(digest, "m.bin").partition("?key=")[2]
    use_keys(monkeypatch, NEW, OLD)
    rotate()
    rotate()
    assert FormerFileKey.objects.count() == 1
    use_keys(monkeypatch, NEW)
    assert not store.is_valid_key(digest, "m.bin", key)
    assert store.is_valid_former_key(digest, "m.bin", key)
    assert not store.is_valid_former_key(digest, "other.bin", key)


@pytest.mark.slow
def test_a_killed_rotation_can_be_run_again(tmp_path: Path) -> None:
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "SECRET_KEY": OLD}
    root = Path(settings.BASE_DIR)

    def manage(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(command, cwd=root, env={**environment, **more}, text=True, capture_output=True)

    assert manage("migrate", "--verbosity", "0").returncode == 0
    assert not (made := manage("shell", "-c", MANY)).returncode, made.stderr
    new = {"SECRET_KEY": NEW, "SECRET_KEY_FALLBACKS": OLD}
    before = stored(tmp_path)
    running = subprocess.Popen([sys.executable, "manage.py", "rotate_keys"], cwd=root, env={**environment, **new})
    wait_until(lambda: before != stored(tmp_path), 30, "the first secrets to be encrypted again", every=0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert set(before) & set(stored(tmp_path)), "the rotation must be killed midway"
    assert manage("rotate_keys", **new).returncode == 0
    read = manage("shell", "-c", COUNT, SECRET_KEY=NEW)
    assert read.stdout.strip().endswith("3000"), read.stdout + read.stderr


def stored(data: Path) -> list[str]:
    with sqlite3.connect(data / "db.sqlite3") as link:
        return [row[0] for row in link.execute("SELECT password FROM deployments_registryinfo")]


MANY = """
from deployments.models import *
account = HostingAccount.objects.create(name="a", base_url="http://x", token="t")
rows = [RegistryInfo(account=account, name=str(n), location="r", password=f"pw {n}") for n in range(3000)]
RegistryInfo.objects.bulk_create(rows)
"""
COUNT = """
from deployments.models import *
print(sum(row.password == f"pw {row.name}" for row in RegistryInfo.objects.all()))
"""
