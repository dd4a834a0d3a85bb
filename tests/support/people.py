"""Users for page tests with their roles in the account "lab", and a lab with one resource of each kind."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.auth import tokens
from dashboard.models import ApiToken, Membership, Role
from deployments.models import (
    Asset,
    Cluster,
    HostingAccount,
    Image,
    Manifest,
    Operation,
    RegisteredModel,
    RegistryInfo,
    Service,
)
from deployments.models.operation import Kind, State
from tests.support.workshop import (
    make_account,
    make_asset,
    make_cluster,
    make_image,
    make_manifest,
    make_model,
    make_registry,
    make_service,
    sign_in,
    sign_in_superuser,
)

FIELD = {RegisteredModel: "model", Manifest: "manifest", Image: "image", Service: "service"}


@dataclass
class Cast:
    """Signed-in client for each kind of user. `operator` owns the lab; `scientist` and `viewer` are members."""

    viewer: Client
    scientist: Client
    operator: Client
    admin: Client
    stranger: Client  # operator of another account
    anonymous: Client

    def everybody(self) -> dict[str, Client]:
        return vars(self)


def make_cast(account: HostingAccount) -> Cast:
    return Cast(
        viewer=sign_in("vera", account, Role.VIEWER),
        scientist=sign_in("sam", account, Role.SCIENTIST),
        operator=sign_in("otto", account, Role.OPERATOR),
        admin=sign_in_superuser(),
        stranger=sign_in("stella", make_account("elsewhere"), Role.OPERATOR),
        anonymous=Client(),
    )


@dataclass
class Lab:
    """Account with one resource of each kind, linked from the model to the service."""

    account: HostingAccount
    model: RegisteredModel
    asset: Asset
    manifest: Manifest
    registry: RegistryInfo
    image: Image
    cluster: Cluster
    service: Service
    operation: Operation
    member: Membership
    token: ApiToken  # the member's

    @property
    def url(self) -> str:
        return f"/accounts/{self.account.name}/"


def make_lab(name: str = "lab") -> Lab:
    account = make_account(name)
    model = make_model(account)
    asset = make_asset(account)
    items = [{"id": asset.name, "url": asset.url, "mime_type": asset.mime_type, "unpack": False}]
    manifest = make_manifest(account, model, model_ids=[model.mms_id], asset_list=items)
    manifest.assets.add(asset)
    registry, cluster = make_registry(account), make_cluster(account)
    image = make_image(manifest, registry=registry, registry_location=registry.location)
    service = make_service(image, health="healthy", scoring_uri="http://127.0.0.1:9/scoring/1/score")
    operation = make_operation(service)
    mia = get_user_model().objects.create_user(f"mia-{name}")
    member = Membership.objects.create(user=mia, account_id=account.pk, role=Role.VIEWER)
    token, _ = tokens.create(mia, "mia's token", ApiToken.Scope.WRITE, None, 7)
    return Lab(account, model, asset, manifest, registry, image, cluster, service, operation, member, token)


def make_operation(row: Any, kind: Kind | None = None, state: State = State.SUCCEEDED, **more: Any) -> Operation:
    """Create an operation on `row`, by default the one that created it."""
    noun = FIELD[type(row)]
    kind = kind or Kind(f"{'register' if noun == 'model' else 'create'}_{noun}")
    known = {"requested_by": "sam", noun: row}
    return Operation.objects.create(account=row.account, kind=kind, state=state, **{**known, **more})
