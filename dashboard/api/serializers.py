"""Serialization of rows for the API. The result never contains secrets or file keys."""

from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from dashboard.api.openapi import common, resources, settings
from dashboard.files.store import is_file_url
from deployments.live.badges import NOUN, Badge, seen_at
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.operations.submit import manifest_as_json, redact_keys
from encryption.fields import has_value


def serialize_account(account: HostingAccount, role: str) -> settings.Account:
    """Return an account; `role` is the role of the token's owner."""
    return {
        "name": account.name,
        "role": role,
        "reached_at": isoformat(account.reached_at),
        "error": account.error,
        "next_attempt_at": isoformat(account.next_attempt_at),
        "token_refused": account.token_refused,
        "seen_at": {
            "models": isoformat(account.models_seen_at),
            "manifests": isoformat(account.manifests_seen_at),
            "images": isoformat(account.images_seen_at),
            "services": isoformat(account.services_seen_at),
        },
        "list_errors": {
            "models": account.models_error,
            "manifests": account.manifests_error,
            "images": account.images_error,
            "services": account.services_error,
        },
    }


def serialize_account_detail(account: HostingAccount, role: str) -> settings.AccountDetail:
    """Return an account with the names of its registries and clusters."""
    return {
        **serialize_account(account, role),
        "registries": list(account.registries.values_list("name", flat=True)),
        "clusters": list(account.clusters.values_list("name", flat=True)),
    }


def serialize_model(model: RegisteredModel) -> resources.Model:
    """Return one version of a model."""
    return {
        **_mirrored(model),
        "name": model.name,
        "version": model.version,
        "source": describe_source(model.url),
        "tags": model.tags,
        "mime_type": model.mime_type,
        "unpack": model.unpack,
    }


def serialize_asset(asset: Asset) -> resources.Asset:
    """Return an asset."""
    return {
        "id": asset.pk,
        "name": asset.name,
        "source": describe_source(asset.url),
        "mime_type": asset.mime_type,
        "unpack": asset.unpack,
        "created_by": asset.created_by,
        "added_at": isoformat(asset.added_at),
    }


def serialize_manifest(manifest: Manifest) -> resources.Manifest:
    """Return a manifest."""
    return {
        **_mirrored(manifest),
        "models": [_reference(model) for model in manifest.models.all()],
        "driver_program": manifest.driver_program,
        "runtime_type": manifest.runtime_type,
    }


def serialize_manifest_detail(manifest: Manifest) -> resources.ManifestDetail:
    """Return a manifest with its contents as the server has them."""
    return {**serialize_manifest(manifest), "contents": manifest_as_json(manifest)}


def serialize_image(image: Image) -> resources.Image:
    """Return an image."""
    return {
        **_mirrored(image),
        "manifest": _reference(image.manifest) if image.manifest else None,
        "models": [_reference(model) for model in image.manifest.models.all()] if image.manifest else [],
        "registry": image.registry.name if image.registry else None,
        "registry_location": image.registry_location,
        "digest": image.digest,
    }


def serialize_service(service: Service) -> resources.Service:
    """Return a service."""
    manifest = service.image.manifest if service.image else None
    return {
        **_mirrored(service),
        "name": service.name,
        "image": _reference(service.image) if service.image else None,
        "models": [_reference(model) for model in manifest.models.all()] if manifest else [],
        "cluster": service.cluster.name if service.cluster else None,
        "scoring_uri": service.scoring_uri,
        "updated_at": isoformat(service.updated_at),
        "revisions": service.revisions,
    }


def serialize_operation(operation: Operation) -> resources.Operation:
    """Return an operation."""
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "badge": serialize_badge(operation.badge),  # type: ignore[attr-defined]
        "about": _subject(operation),
        "requested_by": operation.requested_by,
        "requested_at": isoformat(operation.requested_at),
        "sent_at": isoformat(operation.sent_at),
        "accepted_at": isoformat(operation.accepted_at),
        "checked_at": isoformat(operation.checked_at),
        "finished_at": isoformat(operation.finished_at),
        "mms_operation_id": operation.mms_operation_id,
        "attempts": operation.attempts,
        "retry_of": str(operation.retry_of_id) if operation.retry_of_id else None,
        "error": operation.error_message,
        "error_code": operation.error_code,
    }


def serialize_operation_detail(operation: Operation) -> resources.OperationDetail:
    """Return an operation with its request and the details of its failure."""
    request = {name: describe_source(value) if name == "url" else value for name, value in operation.body.items()}
    details = redact_keys(operation.error_details)
    return {**serialize_operation(operation), "asked": redact_keys(request), "error_details": details}


def serialize_badge(badge: Badge) -> common.Badge:
    """Return a badge: the state, its label, since when, why, and since when it may be out of date."""
    return {
        "state": badge.state,
        "label": badge.label,
        "since": isoformat(badge.since),
        "reason": badge.explanation,
        "stale_since": isoformat(badge.stale_since),
    }


def serialize_registry(row: Any) -> settings.Registry:
    """Return a registry without its password; `row.has_secret` is True if it has one."""
    return {
        "id": row.pk,
        "name": row.name,
        "location": row.location,
        "user": row.user,
        "password": secret_state(row.has_secret),
        **secret_dates(row),
    }


def serialize_cluster(row: Any) -> settings.Cluster:
    """Return a cluster without its kubeconfig; `row.has_secret` is True if it has one."""
    return {
        "id": row.pk,
        "name": row.name,
        "pull_secret": row.pull_secret,
        "production": row.production,
        "kube_config": secret_state(row.has_secret),
        **secret_dates(row),
    }


def serialize_server(account: HostingAccount) -> settings.Server:
    """Return the server of an account, without its secrets."""
    return {
        "base_url": account.base_url,
        "subscription": account.subscription,
        "resource_group": account.resource_group,
        "hosting_account": account.hosting_account,
        "api_version": account.api_version,
        "sign_in": account.sign_in,
        "tenant": account.tenant,
        "client_id": account.client_id,
        "scope": account.scope,
        "authority": account.authority,
        "token": secret_state(has_value(account, "token")),
        "client_secret": secret_state(has_value(account, "client_secret")),
        **secret_dates(account),
    }


def secret_state(is_set: bool) -> common.SecretState:
    """Return the text that replaces a secret."""
    return "set" if is_set else "not set"


def secret_dates(row: Any) -> settings.Secret:
    """Return the time at which the secret of a row was set, and the name of the user."""
    return {"secret_set_at": isoformat(row.secret_set_at), "secret_set_by": row.secret_set_by}


def describe_source(url: str) -> str:
    """Return the source of a file without its credentials: no query, user name or password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    if is_file_url(url):
        digest, _, name = parts.path.rpartition("/files/")[2].partition("/")
        return f"uploaded: {unquote(name)} (sha256 {digest})"
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def isoformat(when: datetime | None) -> str | None:
    """Return the time in ISO 8601."""
    return when.isoformat() if when else None


def _reference(row: Any) -> common.Reference:
    return {"id": row.pk, "name": str(row)}


def _subject(operation: Operation) -> resources.Subject | None:
    resource = operation.resource
    if resource is None:
        return None
    noun: resources.Noun = NOUN[type(resource)]  # type: ignore[assignment]  # the names of four classes
    return {"noun": noun, "id": resource.pk, "name": str(resource)}


def _mirrored(row: Any) -> resources.Mirrored:
    return {
        "id": row.pk,
        "mms_id": row.mms_id,
        "state": row.badge.state,
        "badge": serialize_badge(row.badge),
        "description": row.description,
        "created_by": row.created_by,
        "created_at": isoformat(row.created_at),
        "added_at": isoformat(row.added_at),
        "seen_at": isoformat(seen_at(row)),
        "vanished_at": isoformat(row.vanished_at),
    }
