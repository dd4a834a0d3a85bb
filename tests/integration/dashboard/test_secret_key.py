"""A missing or wrong secret key is reported, and restoring the key restores everything."""

import json
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from dashboard.actions.settings import test_registry as connection_test_of_registry
from dashboard.actions.settings import test_server as connection_test
from dashboard.models import FormerFileKey
from dashboard.ops.backup.create import BackupError, create_backup
from dashboard.ops.doctor.checks import database
from dashboard.ops.doctor.finding import CheckContext, State
from dashboard.ops.startup import prepare
from dashboard.ops.supervisor import storage
from deployments.accounts.availability import client_for
from deployments.accounts.known_secrets import known_secrets
from deployments.client import errors
from deployments.models import Cluster, HostingAccount, Operation, RegistryInfo, Service
from deployments.models.operation import State as OperationState
from deployments.operations import submit
from encryption import check
from encryption.fields import Undecryptable, UndecryptableError, is_undecryptable
from encryption.models import KeyFingerprint
from tests.doubles.mms import MMS
from tests.support.lifecycle import cluster_of, image_of, manifest_of, register, registry_of, turn
from tests.support.people import make_cast, make_lab

pytestmark = pytest.mark.django_db(transaction=True)
RIGHT, WRONG = "the right key", "another key"


@pytest.fixture(autouse=True)
def right_key(settings: Any, tmp_path: Path) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = RIGHT, []
    settings.DATA_DIR = tmp_path


def test_the_first_start_records_the_key_and_later_ones_accept_only_it(settings: Any, account: HostingAccount) -> None:
    check.require_key()
    check.ensure_recorded()
    recorded = check.recorded_fingerprint()
    assert recorded
    assert RIGHT not in recorded
    check.ensure_recorded()
    assert KeyFingerprint.objects.count() == 1
    settings.SECRET_KEY = WRONG
    with pytest.raises(ImproperlyConfigured, match=r"Restore the key from a backup .*--discard-lost"):
        check.require_key()
    settings.SECRET_KEY_FALLBACKS = [RIGHT]
    check.require_key()
    check.ensure_recorded()
    assert check.recorded_fingerprint() == recorded, "until every secret is encrypted with the new key"


def test_an_upgraded_site_with_a_wrong_key_is_noticed_as_well(settings: Any, account: HostingAccount) -> None:
    """A database of an earlier release has secrets, but no fingerprint."""
    settings.SECRET_KEY = WRONG
    assert check.key_problem()
    with pytest.raises(ImproperlyConfigured):
        check.require_key()
    settings.SECRET_KEY_FALLBACKS = [RIGHT]
    check.require_key()
    check.ensure_recorded()
    settings.SECRET_KEY_FALLBACKS = []
    assert check.key_problem(), "the secrets are still encrypted with the previous key"


def test_a_rotation_records_the_new_key(settings: Any, account: HostingAccount) -> None:
    check.ensure_recorded()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = WRONG, [RIGHT]
    call_command("rotate_keys", stdout=StringIO())
    settings.SECRET_KEY_FALLBACKS = []
    assert not check.key_problem()
    settings.SECRET_KEY = RIGHT
    assert check.key_problem()


def test_the_start_refuses_a_wrong_key_and_removes_one_that_it_created(
    settings: Any, account: HostingAccount, tmp_path: Path
) -> None:
    check.ensure_recorded()
    settings.SECRET_KEY, settings.SECRET_KEY_IS_NEW = WRONG, True
    check.key_path().write_text(WRONG)
    with pytest.raises(ImproperlyConfigured, match="isn't the key"):
        prepare.prepare(serves_pages=False)
    assert not check.key_path().exists()
    settings.SECRET_KEY_IS_NEW = False
    check.key_path().write_text(WRONG)
    with pytest.raises(ImproperlyConfigured, match=f"The secret key in {tmp_path}"):
        prepare.prepare(serves_pages=False)
    assert check.key_path().exists(), "only a key that this process created is removed"


def test_a_missing_key_file_is_reported_and_nothing_is_encrypted_without_it(
    settings: Any, account: HostingAccount, tmp_path: Path
) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_IS_MISSING = WRONG, True
    with pytest.raises(ImproperlyConfigured, match="is missing"):
        check.require_key()
    with pytest.raises(ImproperlyConfigured, match="no secret can be stored"):
        account.replace_token("new")
    with pytest.raises(CommandError, match="is missing"):
        call_command("replace_token", account.name, "--token-stdin")
    settings.RUN_DIR = tmp_path
    with pytest.raises(BackupError, match="is missing"):
        create_backup(BytesIO(), lambda part: None)
    HostingAccount.objects.all().delete()
    check.require_key()
    check.ensure_recorded()
    assert check.key_path().read_text() == WRONG, "a site without secrets gets a new key"
    assert check.key_path().stat().st_mode & 0o777 == 0o600


def test_doctor_and_healthz_report_a_wrong_key(settings: Any, account: HostingAccount) -> None:
    check.ensure_recorded()
    storage.forget()
    assert [finding.state for finding in _findings()] == [State.OK]
    assert json.loads(Client().get("/healthz").content)["parts"]["secret key"] == "works"
    settings.SECRET_KEY = WRONG
    storage.forget()
    [finding] = _findings()
    assert finding.state == State.FAILED
    assert "Restore the key from a backup" in finding.advice
    response = Client().get("/healthz")
    assert response.status_code == 503
    assert "not the key of the database" in json.loads(response.content)["parts"]["secret key"]


def _findings() -> list[Any]:
    return [finding for finding in database.check(CheckContext()) if finding.part == "secret key"]


@pytest.fixture
def lost(settings: Any, account: HostingAccount) -> HostingAccount:
    """Return an account with a registry, a cluster and a service, whose key was lost."""
    registry_of(account)
    cluster_of(account)
    Service.objects.create(
        account=account, mms_id="s-1", name="iris", scoring_key="k", scoring_uri="http://127.0.0.1:9"
    )
    settings.SECRET_KEY = WRONG
    return HostingAccount.objects.get()


def test_a_value_that_cannot_be_decrypted_raises_when_it_is_read(lost: HostingAccount) -> None:
    for row, name in (
        (lost, "token"),
        (RegistryInfo.objects.get(), "password"),
        (Cluster.objects.defer("kube_config").get(), "kube_config"),
        (Service.objects.get(), "scoring_key"),
    ):
        with pytest.raises(UndecryptableError, match="can't be decrypted") as error:
            getattr(row, name)
        assert "gAAAA" not in str(error.value)
    assert "gAAAA" not in repr(HostingAccount.objects.values())


def test_other_fields_can_be_changed_and_the_value_survives(lost: HostingAccount, settings: Any) -> None:
    lost.error = "changed"
    lost.save()
    assert is_undecryptable(HostingAccount.objects.get(), "token")
    settings.SECRET_KEY = RIGHT
    assert HostingAccount.objects.get().token == MMS.token
    assert HostingAccount.objects.get().error == "changed"


def test_a_lost_key_does_not_count_as_a_rejected_token(lost: HostingAccount, settings: Any, mms: MMS) -> None:
    operation = turn(register(lost))
    lost = HostingAccount.objects.get()
    assert operation.state == OperationState.QUEUED
    assert "can't be decrypted" in operation.error_message
    assert not lost.token_refused
    assert "can't be decrypted" in lost.error
    assert not mms.requests, "no server was sent an encrypted value"
    settings.SECRET_KEY = RIGHT
    HostingAccount.objects.update(not_before=None)
    assert turn(operation).state == OperationState.SUCCEEDED
    assert not HostingAccount.objects.get().error


def test_actions_that_need_a_lost_secret_are_rejected_with_the_reason(lost: HostingAccount, mms: MMS) -> None:
    with pytest.raises(submit.RequestRefusedError, match="password of “registry” can't be decrypted"):
        submit.create_image(lost, "ann", manifest=manifest_of(lost), registry=RegistryInfo.objects.get())
    with pytest.raises(submit.RequestRefusedError, match="“cluster” can't be decrypted"):
        submit.create_service(lost, "ann", name="x", image=image_of(lost), cluster=Cluster.objects.get())
    assert not connection_test(lost).succeeded
    assert "can't be decrypted" in connection_test(lost).message
    assert "can't be decrypted" in connection_test_of_registry(RegistryInfo.objects.get()).message
    with client_for(lost) as client, pytest.raises(errors.NoTokenError, match="can't be decrypted"):
        client.list_models()
    assert not known_secrets(lost).all.secrets
    assert not Operation.objects.exists()
    assert not mms.requests


def test_pages_and_the_api_explain_a_lost_secret() -> None:
    lab = make_lab()
    Service.objects.update(scoring_uri="http://127.0.0.1:9/score")
    cast = make_cast(lab.account)
    foreign = Undecryptable(Fernet(Fernet.generate_key()).encrypt(b"lost").decode())
    HostingAccount.objects.update(token=foreign)
    RegistryInfo.objects.update(password=foreign)
    Cluster.objects.update(kube_config=foreign)
    Service.objects.update(scoring_key=foreign)
    here = f"/accounts/{lab.account.name}"
    scientist = cast.scientist
    scientist.raise_request_exception = False
    page = scientist.post(f"{here}/services/{lab.service.pk}/key/")
    assert page.status_code == 503
    assert "The saved scoring key of “" in page.text
    assert "gAAAA" not in page.text
    for path in ("services/", f"services/{lab.service.pk}/", "operations/", "images/"):
        assert scientist.get(f"{here}/{path}").status_code == 200
    for path in ("settings/", "settings/registries/1/", "settings/clusters/1/"):
        assert cast.operator.get(f"{here}/{path}").status_code in {200, 404}, path
    registry, cluster = RegistryInfo.objects.get(), Cluster.objects.get()
    form = {"name": registry.name, "location": registry.location, "user": registry.user, "password": ""}
    address = f"{here}/settings/registries/{registry.pk}/"
    refused = cast.operator.post(address, form)
    assert refused.status_code == 422
    assert "The saved password can’t be decrypted with this site’s secret key. Enter it again." in refused.text
    assert cast.operator.post(address, form | {"password": "again"}).status_code == 302
    assert RegistryInfo.objects.get().password == "again"
    form = {"name": cluster.name, "pull_secret": cluster.pull_secret, "kube_config": ""}
    assert cast.operator.post(f"{here}/settings/clusters/{cluster.pk}/", form).status_code == 422


def test_a_successful_connection_test_resumes_calls(account: HostingAccount, mms: MMS) -> None:
    HostingAccount.objects.update(token_refused=True, error="rejected")
    account = HostingAccount.objects.get()
    account.base_url = "http://127.0.0.1:1"
    assert not connection_test(account).succeeded
    assert HostingAccount.objects.get().token_refused
    changed = HostingAccount.objects.get()
    changed.api_version = "2020-01-01"
    assert connection_test(changed).succeeded
    assert HostingAccount.objects.get().token_refused, "other settings than the saved ones were tested"
    assert connection_test(HostingAccount.objects.get()).succeeded
    assert not HostingAccount.objects.get().is_failing


def test_lost_secrets_can_be_discarded_and_entered_again(lost: HostingAccount, settings: Any) -> None:
    settings.SECRET_KEY = RIGHT
    FormerFileKey.objects.create(key="a key of uploads")
    check.ensure_recorded()
    settings.SECRET_KEY, settings.SECRET_KEY_IS_MISSING = WRONG, True
    with pytest.raises(CommandError, match="is missing"):
        call_command("rotate_keys", stdout=StringIO(), stderr=StringIO())
    said = StringIO()
    call_command("rotate_keys", "--discard-lost", stdout=said)
    assert "deployments_registryinfo password" in said.getvalue()
    assert check.key_path().read_text() == WRONG
    assert not check.key_problem()
    assert HostingAccount.objects.get().token is None
    assert Service.objects.get().scoring_key is None
    assert not any(is_undecryptable(row, "key") for row in FormerFileKey.objects.all())
    HostingAccount.objects.get().replace_token("new")
    assert HostingAccount.objects.get().token == "new"
