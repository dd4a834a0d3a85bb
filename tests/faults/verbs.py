"""The six kinds of requests that write, for parametrized tests: how to request each, and where its effect is seen."""

from collections.abc import Callable
from dataclasses import dataclass

from deployments.mirror import refresh
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.operations import submit
from tests.doubles.mms import MMS
from tests.support.lifecycle import asset_of, cluster_of, present, register, registry_of


@dataclass(frozen=True)
class Verb:
    name: str
    method: str
    path: str
    effect: str  # its name in the double's `effects`
    ask: Callable[[HostingAccount], Operation]

    def __str__(self) -> str:
        return self.name


def furnished(account: HostingAccount, mms: MMS) -> HostingAccount:
    """Create what the verbs need, as another client: a model, a manifest, two images of it, and two services."""
    model = mms.add_model("roses")
    runtime = {"runtimeType": "ScikitPython", "properties": {}}
    mms._add(mms.manifests, {"modelIds": [model["id"]], "assets": [], "targetRuntime": runtime}, "manifest-1")
    for image in ("image-1", "image-2"):
        mms._add(mms.images, {"manifestId": "manifest-1", "description": image}, image)
    for name in ("to update", "to delete"):
        mms.add_service(name, "image-1")
    refresh.refresh(account.pk, refresh.LISTS)
    Service.objects.filter(account=account).update(cluster=cluster_of(account))
    return account


def _create_manifest(account: HostingAccount) -> Operation:
    models = list(RegisteredModel.objects.filter(account=account, name="roses"))
    chosen = {"models": models, "assets": [], "driver": asset_of(account), "runtime_type": "ScikitPython"}
    return submit.create_manifest(account, "ann", **chosen)  # type: ignore[arg-type] # a dictionary has one type for all its values


def _create_image(account: HostingAccount) -> Operation:
    manifest = Manifest.objects.get(account=account, mms_id="manifest-1")
    return submit.create_image(
        account, "ann", manifest=manifest, registry=registry_of(account), description="the third"
    )


def _create_service(account: HostingAccount) -> Operation:
    cluster = account.clusters.get()
    return submit.create_service(account, "ann", name="iris", image=_image(account, "image-2"), cluster=cluster)


def _update_service(account: HostingAccount) -> Operation:
    service = Service.objects.get(account=account, name="to update")
    return submit.update_service(account, "ann", service=service, image=_image(account, "image-2"))


def _delete_service(account: HostingAccount) -> Operation:
    return submit.delete_service(account, "ann", service=Service.objects.get(account=account, name="to delete"))


def _image(account: HostingAccount, mms_id: str) -> Image:
    return Image.objects.get(account=account, mms_id=mms_id)


VERBS = [
    Verb("register_model", "POST", "/models", "models", register),
    Verb("create_manifest", "POST", "/manifests", "manifests", _create_manifest),
    Verb("create_image", "POST", "/images", "images", _create_image),
    Verb("create_service", "POST", "/services", "services", _create_service),
    Verb("update_service", "PUT", "/services", "updates", _update_service),
    Verb("delete_service", "DELETE", "/services", "deletions", _delete_service),
]


def shows(operation: Operation, mms: MMS) -> bool:
    """Return True if the row matches the server after the operation succeeded."""
    match operation.kind:
        case "update_service":
            return (
                mms.services[present(present(operation.service).mms_id)]["imageId"]
                == present(present(operation.service).image).mms_id
                == "image-2"
            )
        case "delete_service":
            return (
                present(operation.service).mms_id not in mms.services
                and present(operation.service).vanished_at is not None
            )
    there = {"register_model": mms.models, "create_manifest": mms.manifests, "create_image": mms.images}
    return present(operation.resource).mms_id in there.get(operation.kind, mms.services)
