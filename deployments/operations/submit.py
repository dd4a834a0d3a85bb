"""Requests of users: one function per verb stores an Operation and its row, and returns without calling the server.

`by` is the name of the user. All functions raise RequestRefusedError if nothing was stored. `dispatch` and `run` send
them. A queue message only makes that happen sooner, so requests succeed while Redis is unavailable.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments.client import wire
from deployments.live import events
from deployments.live.badges import NOUN, Resource
from deployments.live.transitions import transition
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
from deployments.models.operation import ACCEPTED, NEEDS_DECISION, OPEN, RETRYABLE, SERVICE_CHANGES, Kind, State
from deployments.operations import queue, requests
from deployments.operations.matching import consequence_of_giving_up
from deployments.operations.requests import RUNTIME_TYPES, RequestRefusedError
from deployments.timing import QUEUE_GRACE_SECONDS
from netguard.redaction import MASK

__all__ = [
    "RUNTIME_TYPES",
    "SUBMIT",
    "RequestRefusedError",
    "cancel",
    "create_image",
    "create_manifest",
    "create_service",
    "delete_service",
    "manifest_as_json",
    "needs_decision",
    "preview",
    "redact_keys",
    "register_model",
    "resolve",
    "resume",
    "retry",
    "update_service",
]


def register_model(
    account: HostingAccount,
    by: str,
    *,
    name: str,
    url: str,
    tags: Iterable[str] = (),
    description: str = "",
    mime_type: str = "",
    unpack: bool = False,
) -> Operation:
    """Request to register a model from `url`. unpack: whether the server unpacks the downloaded archive."""
    chosen: dict[str, Any] = {"name": name, "url": url, "tags": list(tags), "description": description}
    chosen |= {"mime_type": mime_type, "unpack": unpack}
    _check(account, Kind.REGISTER_MODEL, chosen)
    return _submit(account, by, Kind.REGISTER_MODEL, chosen, lambda: RegisteredModel(**chosen))


def create_manifest(
    account: HostingAccount,
    by: str,
    *,
    models: Sequence[RegisteredModel],
    assets: Sequence[Asset],
    driver: Asset | None,
    runtime_type: str,
    pip_requirements: str = "",
    conda_env_file: str = "",
    description: str = "",
) -> Operation:
    """Request to create a manifest. driver: the asset with the driver script, or None."""
    chosen: dict[str, Any] = {"models": list(models), "assets": list(assets), "driver": driver}
    chosen |= {"runtime_type": runtime_type, "pip_requirements": pip_requirements}
    chosen |= {"conda_env_file": conda_env_file, "description": description}
    _check(account, Kind.CREATE_MANIFEST, chosen)
    request = requests.create_manifest(**chosen)

    def make() -> Manifest:
        return Manifest(
            driver_program=request.driver_program,
            model_ids=request.model_ids,
            asset_list=[dataclasses.asdict(asset) for asset in request.assets],
            runtime_type=request.runtime_type,
            properties=request.properties,
            description=description,
        )

    def link(manifest: Any) -> None:
        manifest.models.set(models)
        manifest.assets.set(requests.assets_with_driver(assets, driver))

    return _submit(account, by, Kind.CREATE_MANIFEST, chosen, make, link)


def create_image(
    account: HostingAccount, by: str, *, manifest: Manifest, registry: RegistryInfo, description: str = ""
) -> Operation:
    """Request to build an image from the manifest and push it to the registry."""
    chosen = {"manifest": manifest, "registry": registry, "description": description}
    _check(account, Kind.CREATE_IMAGE, chosen)
    destination = {"registry_location": registry.location, "registry_user": registry.user}
    return _submit(account, by, Kind.CREATE_IMAGE, chosen, lambda: Image(**chosen, **destination))


def create_service(account: HostingAccount, by: str, *, name: str, image: Image, cluster: Cluster) -> Operation:
    """Request to deploy the image as a service on the cluster. Refused if a service has that name."""
    chosen = {"name": name, "image": image, "cluster": cluster}
    _check(account, Kind.CREATE_SERVICE, chosen)
    same_name = Service.objects.filter(account=account, name=name, vanished_at=None)
    if same_name.exclude(mms_id=None).exists() or same_name.filter(operations__state__in=OPEN).exists():
        raise RequestRefusedError("name", f"A service named “{name}” already exists.")
    return _submit(account, by, Kind.CREATE_SERVICE, chosen, lambda: Service(**chosen))


def update_service(
    account: HostingAccount, by: str, *, service: Service, image: Image, cluster: Cluster | None = None
) -> Operation:
    """Request to roll out the image to the service.

    cluster: required for a service created outside the dashboard, unless the account has only one.
    """
    chosen = {"service": service, "image": image} | ({"cluster": cluster} if cluster else {})
    _check(account, Kind.UPDATE_SERVICE, chosen)
    return _submit(account, by, Kind.UPDATE_SERVICE, chosen, lambda: service)


def delete_service(account: HostingAccount, by: str, *, service: Service) -> Operation:
    """Request to delete the service."""
    chosen = {"service": service}
    _check(account, Kind.DELETE_SERVICE, chosen)
    return _submit(account, by, Kind.DELETE_SERVICE, chosen, lambda: service)


SUBMIT: dict[str, Callable[..., Operation]] = {
    Kind.REGISTER_MODEL: register_model,
    Kind.CREATE_MANIFEST: create_manifest,
    Kind.CREATE_IMAGE: create_image,
    Kind.CREATE_SERVICE: create_service,
    Kind.UPDATE_SERVICE: update_service,
    Kind.DELETE_SERVICE: delete_service,
}


def retry(operation: Operation, by: str) -> Operation:
    """Request a failed or canceled operation again, for the same row. Return the new operation, which refers to it.

    If the server has a service whose creation failed, that service is updated to the image instead.
    """
    row, kind = operation.resource, operation.kind
    if row is None or operation.state not in RETRYABLE:
        raise RequestRefusedError("", "Only a failed or canceled operation can be retried.")
    is_update = isinstance(row, Service) and kind == Kind.CREATE_SERVICE and _never_served(row)
    if row.mms_id and not is_update and kind not in SERVICE_CHANGES:
        raise RequestRefusedError("", f"“{row}” was created in the meantime.")
    _refuse_open(row)
    chosen = requests.from_body(operation.account, operation.body)
    if is_update:
        kind, chosen = Kind.UPDATE_SERVICE, {"service": row, "image": chosen["image"], "cluster": chosen["cluster"]}
    _check(operation.account, kind, chosen)
    return _submit(operation.account, by, kind, chosen, lambda: row, retry_of=operation)


def _never_served(service: Service) -> bool:
    """Return True if the server has the service but its creation failed."""
    return bool(service.mms_id) and wire.phase(service.state) in {wire.Phase.FAILED, wire.Phase.CANCELED}


def cancel(operation: Operation, by: str) -> Operation:
    """Cancel the operation: immediately if it is unsent, else by asking the server, which may not support it."""
    moment = "before it was sent" if not operation.attempts else "before it was sent again"
    unknown = "" if not operation.attempts else " It is unknown whether it took effect the first time."
    if transition(
        operation, State.CANCELED, expected={State.QUEUED}, error_message=f"Canceled by {by} {moment}.{unknown}"
    ):
        return operation
    # A single statement, so that the result of an operation that ends now isn't overwritten.
    accepted = Operation.objects.filter(pk=operation.pk, state__in=ACCEPTED)
    requested = accepted.exclude(mms_operation_id="").update(
        cancel_requested=True, next_poll_at=timezone.now(), error_message=f"{by} requested to cancel this."
    )
    operation.refresh_from_db()
    if not requested:
        raise RequestRefusedError("", f"This can't be canceled now: it is {operation.get_state_display().lower()}.")
    queue.hint(operation)
    return operation


def needs_decision(operation: Operation) -> bool:
    """Return True if only a user can decide about an uncertain operation. See `resolve`."""
    return operation.state == State.UNCERTAIN and operation.error_code == NEEDS_DECISION


def resolve(operation: Operation, by: str, *, send_again: bool) -> Operation:
    """Resolve an operation whose outcome can't be determined: send it again or mark it as failed."""
    if send_again:
        reset: dict[str, Any] = {"next_poll_at": timezone.now(), "accepted_at": None, "mms_operation_id": ""}
        reset |= {"error_code": "", "error_message": ""}
        done = transition(operation, State.QUEUED, expected={State.UNCERTAIN}, **reset)
    else:
        consequence = consequence_of_giving_up(operation)
        reason = f"{by} decided not to send it again. It is unknown whether it took effect. If it did, {consequence}."
        done = transition(
            operation, State.FAILED, expected={State.UNCERTAIN}, error_code="OutcomeUnknown", error_message=reason
        )
    if not done:
        raise RequestRefusedError("", "This is already resolved.")
    queue.hint(operation)
    return operation


def resume(operation: Operation, by: str) -> Operation:  # noqa: ARG001 - called like the other actions
    """Resume polling of an operation that exceeded MAX_POLLING_SECONDS."""
    paused = Operation.objects.filter(pk=operation.pk, state__in=OPEN, next_poll_at=None, claimed_until=None)
    if not paused.update(next_poll_at=timezone.now(), resumed_at=timezone.now(), error_message=""):
        raise RequestRefusedError("", "This operation is already being checked.")
    operation.refresh_from_db()
    queue.hint(operation)
    return operation


def preview(kind: str, **chosen: Any) -> dict[str, Any]:
    """Return the JSON that would be sent, with secrets as "…".

    chosen: the verb's keyword arguments. Raises RequestRefusedError as the verb does.
    """
    masked: dict[str, Any] = redact_keys(wire.mask_secrets(requests.BUILDERS[kind](**chosen)).to_wire())
    return masked


def manifest_as_json(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's JSON as the server has it, with access keys in URLs as "…"."""
    request = wire.NewManifest(
        model_ids=manifest.model_ids,
        assets=[wire.AssetRef(**asset) for asset in manifest.asset_list],
        driver_program=manifest.driver_program,
        runtime_type=manifest.runtime_type,
        properties=manifest.properties,
        description=manifest.description,
    )
    masked: dict[str, Any] = redact_keys({"id": manifest.mms_id, **request.to_wire()})
    return masked


def _check(account: HostingAccount, kind: str, chosen: dict[str, Any]) -> None:
    requests.check_account(account, chosen)
    requests.check_present(chosen)
    requests.BUILDERS[kind](**chosen)


def _submit(
    account: HostingAccount,
    by: str,
    kind: str,
    chosen: dict[str, Any],
    make: Callable[[], Resource],
    link: Callable[[Any], None] | None = None,
    retry_of: Operation | None = None,
) -> Operation:
    """Store the operation and its row in one transaction, then notify workers and pages."""
    row = make()
    try:
        with transaction.atomic():
            if row.pk is None:
                row.account, row.created_by = account, by
                row.save()
                if link:
                    link(row)
            operation = Operation(account=account, kind=kind, requested_by=by, retry_of=retry_of)
            operation.body = requests.to_body(chosen)
            operation.next_poll_at = timezone.now() + timedelta(seconds=QUEUE_GRACE_SECONDS)
            setattr(operation, NOUN[type(row)], row)
            operation.save(force_insert=True)
            # Robust: the operation is stored even if notifying fails
            transaction.on_commit(lambda: _announce(operation, row), robust=True)
    except IntegrityError:
        _refuse_open(row)
        raise
    return operation


def _announce(operation: Operation, row: Resource) -> None:
    # Publish first: otherwise this event could follow a worker's newer one.
    events.publish_operation(operation, "operations", f"{NOUN[type(row)]}s")
    queue.hint(operation)


def _refuse_open(row: Resource) -> None:
    """Raise RequestRefusedError if the row has an open operation, and name it."""
    first = Operation.objects.filter(**{NOUN[type(row)]: row}, state__in=OPEN).order_by("requested_at").first()
    if first:
        raise RequestRefusedError(
            "",
            f"“{row}” has an open operation: {first.get_kind_display().lower()}, requested by {first.requested_by} "
            f"({first.pk}). Wait for it to finish, or cancel it.",
        )


# Access keys in query parameters, and user information before the host.
_KEY_IN_URL = re.compile(
    r"(?<=[?&]key=)[^&\s]+|(?<=[?&]sig=)[^&\s]+|(?<=[?&]token=)[^&\s]+|(?<=://)[^/@\s]+(?=@)", re.IGNORECASE
)


def redact_keys(value: Any) -> Any:
    """Return JSON `value` with access keys in URLs, such as those of uploads or cloud storage, as "…"."""
    if isinstance(value, dict):
        return {name: redact_keys(item) for name, item in value.items()}
    if isinstance(value, list):
        return [redact_keys(item) for item in value]
    return _KEY_IN_URL.sub(MASK, value) if isinstance(value, str) else value
