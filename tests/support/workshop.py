"""Rows and signed-in users for tests of the forms. Everything is stored in the real database."""

from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.models import Membership, Role
from deployments.models import Asset, Cluster, HostingAccount, Image, Manifest, RegisteredModel, RegistryInfo, Service

REGISTRY_PASSWORD = "the registry's password"
KUBE_CONFIG = "the cluster's kubeconfig"
SCORING_KEY = "the-service's-key"


def make_account(name: str = "lab") -> HostingAccount:
    """Create an account. Its server doesn't need to exist, because pages don't call servers."""
    place = {"subscription": "s", "resource_group": "g", "hosting_account": name}
    return HostingAccount.objects.create(name=name, base_url="http://127.0.0.1:9", token="t", **place)


def sign_in(name: str, account: HostingAccount | None = None, role: Role | None = None) -> Client:
    """Return a client signed in as `name`, who is a member of `account` if it is given."""
    user = get_user_model().objects.create_user(name)
    if account and role:
        Membership.objects.create(user=user, account_id=account.pk, role=role)
    client = Client()
    client.force_login(user)
    return client


def sign_in_superuser() -> Client:
    """Return a client signed in as the superuser ada, who is created first."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada"))
    return client


def make_model(account: HostingAccount, name: str = "iris", version: int | None = 1, **more: Any) -> RegisteredModel:
    known: dict[str, Any] = {"mms_id": f"{name}-{version}", "url": f"https://models.example/{name}.pkl"}
    return RegisteredModel.objects.create(account=account, name=name, version=version, **{**known, **more})


def make_asset(account: HostingAccount, name: str = "score", file: str = "score.py") -> Asset:
    mime_type = "text/x-python" if file.endswith(".py") else "application/json"
    return Asset.objects.create(account=account, name=name, url=f"https://assets.example/{file}", mime_type=mime_type)


def make_manifest(account: HostingAccount, *models: RegisteredModel, **more: Any) -> Manifest:
    known = {
        "mms_id": f"manifest-{Manifest.objects.count()}",
        "runtime_type": "ScikitPython",
        "driver_program": "score",
    }
    manifest = Manifest.objects.create(account=account, **{**known, **more})
    manifest.models.set(models)
    return manifest


def make_registry(account: HostingAccount) -> RegistryInfo:
    place = {"location": "registry.example", "user": "robot", "password": REGISTRY_PASSWORD}
    return RegistryInfo.objects.create(account=account, name="our registry", **place)


def make_cluster(account: HostingAccount, name: str = "this machine") -> Cluster:
    return Cluster.objects.create(account=account, name=name, kube_config=KUBE_CONFIG, pull_secret="local")


def make_image(manifest: Manifest, description: str = "first image", **more: Any) -> Image:
    known = {"mms_id": f"image-{Image.objects.count()}", "description": description}
    return Image.objects.create(account=manifest.account, manifest=manifest, **{**known, **more})


def make_service(image: Image, name: str = "iris-live", **more: Any) -> Service:
    cluster = make_cluster(image.account) if not image.account.clusters.exists() else image.account.clusters.first()
    known = {"mms_id": f"service-{name}", "image": image, "cluster": cluster, "scoring_key": SCORING_KEY}
    return Service.objects.create(account=image.account, name=name, **{**known, **more})
