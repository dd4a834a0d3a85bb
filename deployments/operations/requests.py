"""Validation of user input, and its conversion to requests for the server.

One function per verb, with the keyword arguments of `operations.submit`. Each returns the request or raises
RequestRefusedError naming the field. Limits are those of the MMS API reference ("Request Body" of each operation);
where it has none, the server decides.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from deployments.client import wire
from deployments.models import Asset, Cluster, HostingAccount, Image, Manifest, RegisteredModel, RegistryInfo, Service
from deployments.models.account import WithSecret
from deployments.models.mirrored import Mirrored
from deployments.models.operation import Kind
from encryption.fields import UndecryptableError

RUNTIME_TYPES = [
    ("ScikitPython", "Python with scikit-learn"),
    ("Python", "Python"),
    ("SparkPython", "Python with Spark"),
    ("CNTKPython", "Python with CNTK"),
    ("TLC", "TLC"),
]


class RequestRefusedError(Exception):
    """The request is invalid; nothing was stored. `field` is the argument's name, "" for the request as a whole."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field, self.message = field, message


def register_model(
    *, name: str, url: str, tags: Iterable[str] = (), description: str = "", mime_type: str = "", unpack: bool = False
) -> wire.NewModel:
    """Return the request to register a model."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,32}", name):
        raise RequestRefusedError("name", "A model's name must have 1 to 32 letters, digits and hyphens.")
    for tag in (tags := list(tags)):
        if not re.fullmatch(r"[A-Za-z0-9]{1,29}", tag):
            raise RequestRefusedError("tags", f"The tag “{tag}” must have 1 to 29 letters and digits.")
    check_length("description", description, 200)
    check_length("mime_type", mime_type, 200)
    check_url("url", url)
    return wire.NewModel(name, url, tags, description, mime_type, unpack)


def create_manifest(
    *,
    models: Sequence[RegisteredModel],
    assets: Sequence[Asset],
    driver: Asset | None,
    runtime_type: str,
    pip_requirements: str = "",
    conda_env_file: str = "",
    description: str = "",
) -> wire.NewManifest:
    """Return the request to create a manifest."""
    if not models:
        raise RequestRefusedError("models", "Choose at least one model.")
    if runtime_type not in dict(RUNTIME_TYPES):
        raise RequestRefusedError("runtime_type", f"The runtime “{runtime_type}” doesn't exist.")
    check_length("description", description, 512)
    return wire.NewManifest(
        model_ids=[require_id("models", model) for model in models],
        assets=_asset_refs(assets_with_driver(assets, driver)),
        driver_program=driver.name if driver else "",
        runtime_type=runtime_type,
        properties={"pip_requirements": pip_requirements, "conda_env_file": conda_env_file},
        description=description,
    )


def create_image(*, manifest: Manifest, registry: RegistryInfo, description: str = "") -> wire.NewImage:
    """Return the request to create an image."""
    check_length("description", description, 512)
    password = require_secret("registry", registry, "password")
    return wire.NewImage(require_id("manifest", manifest), description, registry.location, registry.user, password)


def create_service(*, name: str, image: Image, cluster: Cluster) -> wire.NewService:
    """Return the request to create a service."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", name):
        raise RequestRefusedError(
            "name",
            "A service's name can have letters, digits, hyphens and dots, and must start with a letter or digit.",
        )
    kube_config = require_secret("cluster", cluster, "kube_config")
    return wire.NewService(name, require_id("image", image), cluster.pull_secret, kube_config)


def update_service(*, service: Service, image: Image, cluster: Cluster | None = None) -> wire.ServiceUpdate:
    """Return the request to update a service. cluster: for services created outside the dashboard."""
    cluster = cluster or service.cluster or only_cluster(service.account)
    if cluster is None:
        raise RequestRefusedError(
            "service", f"“{service}” was created outside the dashboard, so its pull secret is unknown."
        )
    manifest_id = image.manifest.mms_id if image.manifest else None
    return wire.ServiceUpdate(
        require_id("service", service), require_id("image", image), manifest_id or "", cluster.pull_secret
    )


def delete_service(*, service: Service) -> wire.ServiceDeletion:
    """Return the request to delete a service."""
    return wire.ServiceDeletion(require_id("service", service))


BUILDERS: dict[str, Callable[..., wire.Request]] = {
    Kind.REGISTER_MODEL: register_model,
    Kind.CREATE_MANIFEST: create_manifest,
    Kind.CREATE_IMAGE: create_image,
    Kind.CREATE_SERVICE: create_service,
    Kind.UPDATE_SERVICE: update_service,
    Kind.DELETE_SERVICE: delete_service,
}
# Arguments that are rows; a stored operation has their primary keys.
ROW_CLASSES: dict[str, Any] = {
    "models": RegisteredModel,
    "assets": Asset,
    "driver": Asset,
    "manifest": Manifest,
    "registry": RegistryInfo,
    "image": Image,
    "cluster": Cluster,
    "service": Service,
}


def to_body(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as JSON, with rows as primary keys and so without secrets."""

    def stored(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [stored(item) for item in value]
        return getattr(value, "pk", value)

    return {name: stored(value) for name, value in chosen.items()}


def from_body(account: HostingAccount, body: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that `to_body` stored. Raises RequestRefusedError if a row was deleted."""
    return {name: _load(account, name, value) if name in ROW_CLASSES else value for name, value in body.items()}


def _load(account: HostingAccount, name: str, value: Any) -> Any:
    if value is None:
        return None
    wanted = value if isinstance(value, list) else [value]
    rows = ROW_CLASSES[name].objects.filter(account=account).in_bulk(wanted)
    if gone := [pk for pk in wanted if pk not in rows]:
        raise RequestRefusedError(name, f"The resource selected as “{name}” no longer exists (number {gone[0]}).")
    return [rows[pk] for pk in wanted] if isinstance(value, list) else rows[value]


def check_account(account: HostingAccount, chosen: dict[str, Any]) -> None:
    """Raise RequestRefusedError for rows of another account, as if they didn't exist."""
    for name in chosen.keys() & ROW_CLASSES.keys():
        value = chosen[name]
        for row in value if isinstance(value, list | tuple) else [value]:
            if row is not None and row.account_id != account.pk:
                raise RequestRefusedError(name, "Not found in this account.")


def check_present(chosen: dict[str, Any]) -> None:
    """Raise RequestRefusedError for rows that vanished at the server. Checked on submission only."""
    for name, value in chosen.items():
        for row in value if isinstance(value, list | tuple) else [value]:
            if isinstance(row, Mirrored) and row.vanished_at:
                raise RequestRefusedError(name, f"“{row}” no longer exists on the server.")


def check_url(field: str, url: str) -> None:
    """Raise RequestRefusedError unless `url` is an http(s) URL with a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise RequestRefusedError(field, "This isn't a valid URL.") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", url):
        raise RequestRefusedError(field, "Enter a URL that starts with http:// or https:// and has a host.")


def check_length(field: str, value: str, limit: int) -> None:
    """Raise RequestRefusedError if `value` has more than `limit` characters."""
    if len(value) > limit:
        raise RequestRefusedError(field, f"At most {limit} characters are allowed. This has {len(value)}.")


def require_id(field: str, row: Mirrored) -> str:
    """Return the row's server id. Raises RequestRefusedError if it has none yet."""
    if not row.mms_id:
        raise RequestRefusedError(field, f"“{row}” isn't ready. Wait for the operation that creates it.")
    return row.mms_id


def require_secret(field: str, row: WithSecret, name: str) -> str:
    """Return a secret of the row, "" if it has none. Raises RequestRefusedError if it can't be decrypted."""
    try:
        return getattr(row, name) or ""
    except UndecryptableError as error:
        raise RequestRefusedError(field, str(error)) from None


def only_cluster(account: HostingAccount) -> Cluster | None:
    """Return the account's cluster if it has exactly one."""
    clusters = list(account.clusters.all()[:2])
    return clusters[0] if len(clusters) == 1 else None


def assets_with_driver(assets: Sequence[Asset], driver: Asset | None) -> list[Asset]:
    """Return the assets including the driver, whether or not it was chosen as an asset as well."""
    return [*assets] if driver is None or driver in assets else [driver, *assets]


def _asset_refs(assets: Sequence[Asset]) -> list[wire.AssetRef]:
    names = [asset.name for asset in assets]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise RequestRefusedError(
            "assets", f"Two of the assets are named “{twice}”. Names must be unique in a manifest."
        )
    return [wire.AssetRef(asset.name, asset.url, asset.mime_type, asset.unpack) for asset in assets]
