"""Helpers for tests of the lifecycle: a hosting account, its rows, and a worker's turn without a worker."""

import json
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.utils import timezone

from deployments.accounts.availability import client_for
from deployments.models import Asset, Cluster, HostingAccount, Image, Manifest, Operation, RegistryInfo
from deployments.operations import dispatch, submit
from tests.doubles.mms import MMS

T = TypeVar("T")
PASSWORD = "registry-password-7351"
KUBE_TOKEN = "kube-token-99182736"
KUBE_CONFIG = json.dumps(
    {"clusters": [{"cluster": {"server": "https://k8s.example"}}], "users": [{"user": {"token": KUBE_TOKEN}}]}
)


def account_at(url: str, name: str = "team") -> HostingAccount:
    place = {"subscription": "s", "resource_group": "g", "hosting_account": "a"}
    return HostingAccount.objects.create(name=name, base_url=url, token=MMS.token, **place)


def registry_of(account: HostingAccount) -> RegistryInfo:
    login = {"location": "registry.example", "user": "puller", "password": PASSWORD}
    return RegistryInfo.objects.create(account=account, name="registry", **login)


def cluster_of(account: HostingAccount) -> Cluster:
    return Cluster.objects.create(account=account, name="cluster", kube_config=KUBE_CONFIG, pull_secret="puller")


def present(value: T | None) -> T:
    """Return `value`. Fail the test without a value."""
    assert value is not None
    return value


def register(account: HostingAccount, **more: Any) -> Operation:
    return submit.register_model(account, "ann", **{"name": "iris", "url": "http://files.example/iris.pkl"} | more)


def manifest_of(account: HostingAccount, mms_id: str = "manifest-1") -> Manifest:
    return Manifest.objects.create(account=account, mms_id=mms_id, runtime_type="ScikitPython", seen_at=timezone.now())


def image_of(account: HostingAccount, mms_id: str = "image-1") -> Image:
    manifest = manifest_of(account, f"manifest-of-{mms_id}")
    return Image.objects.create(account=account, mms_id=mms_id, manifest=manifest, seen_at=timezone.now())


def asset_of(account: HostingAccount, name: str = "score") -> Asset:
    return Asset.objects.create(account=account, name=name, url=f"http://files.example/{name}.py")


def age_lists(at: datetime, *nouns: type[Any]) -> None:
    """Make the rows of these classes look as if the server last confirmed them at this time."""
    for noun in nouns:
        noun._default_manager.update(seen_at=at)
    for account in HostingAccount.objects.all():
        for version in account.list_versions.values():
            version["confirmed_at"] = at.isoformat()
        account.save(update_fields=["list_versions"])


def turn(operation: Operation) -> Operation:
    """Run a worker's next turn of the operation. Return the updated operation."""
    account = HostingAccount.objects.get(pk=operation.account_id)
    with client_for(account) as client:
        dispatch.step(operation.pk, client, account)
    return Operation.objects.get(pk=operation.pk)


def later(operation: Operation, seconds: float) -> Operation:
    """Move the times of the operation into the past by these seconds. Return it."""
    operation.refresh_from_db()
    past = timedelta(seconds=seconds)
    names = ["requested_at", "sent_at", "accepted_at", "next_poll_at", "claimed_until", "state_since"]
    moved = {name: getattr(operation, name) - past for name in names if getattr(operation, name)}
    Operation.objects.filter(pk=operation.pk).update(**moved)
    operation.refresh_from_db()
    return operation
