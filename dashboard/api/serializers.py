"""The rows of the dashboard as the API shows them. What is secret, or opens a file, is in none of them."""

from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from dashboard.api.openapi import common, resources, settings
from dashboard.files.store import is_file_url
from deployments.live.badges import NOUN, Badge
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.operations.submit import manifest_as_json, redact_keys


def show_account(account: HostingAccount, role: str) -> settings.Account:
    return {
        "name": account.name,
        "role": role,
        "reached_at": moment(account.reached_at),
        "error": account.error,
        "token_refused": account.token_refused,
        "seen_at": {
            "models": moment(account.models_seen_at),
            "manifests": moment(account.manifests_seen_at),
            "images": moment(account.images_seen_at),
            "services": moment(account.services_seen_at),
        },
    }


def show_account_whole(account: HostingAccount, role: str) -> settings.AccountDetail:
    """With the names of the registries and clusters that forms take."""
    return {
        **show_account(account, role),
        "registries": list(account.registries.values_list("name", flat=True)),
        "clusters": list(account.clusters.values_list("name", flat=True)),
    }


def show_model(model: RegisteredModel) -> resources.Model:
    return {
        **_mirrored(model),
        "name": model.name,
        "version": model.version,
        "source": source(model.url),
        "tags": model.tags,
        "mime_type": model.mime_type,
        "unpack": model.unpack,
    }


def show_asset(asset: Asset) -> resources.Asset:
    return {
        "id": asset.pk,
        "name": asset.name,
        "source": source(asset.url),
        "mime_type": asset.mime_type,
        "unpack": asset.unpack,
        "created_by": asset.created_by,
        "added_at": moment(asset.added_at),
    }


def show_manifest(manifest: Manifest) -> resources.Manifest:
    return {
        **_mirrored(manifest),
        "models": [_reference(model) for model in manifest.models.all()],
        "driver_program": manifest.driver_program,
        "runtime_type": manifest.runtime_type,
    }


def show_manifest_whole(manifest: Manifest) -> resources.ManifestDetail:
    """With what it consists of, as the server has it."""
    return {**show_manifest(manifest), "contents": manifest_as_json(manifest)}


def show_image(image: Image) -> resources.Image:
    return {
        **_mirrored(image),
        "manifest": _reference(image.manifest) if image.manifest else None,
        "models": [_reference(model) for model in image.manifest.models.all()] if image.manifest else [],
        "registry": image.registry.name if image.registry else None,
        "registry_location": image.registry_location,
        "digest": image.digest,
    }


def show_service(service: Service) -> resources.Service:
    manifest = service.image.manifest if service.image else None
    return {
        **_mirrored(service),
        "name": service.name,
        "image": _reference(service.image) if service.image else None,
        "models": [_reference(model) for model in manifest.models.all()] if manifest else [],
        "cluster": service.cluster.name if service.cluster else None,
        "scoring_uri": service.scoring_uri,
        "updated_at": moment(service.updated_at),
        "revisions": service.revisions,
    }


def show_operation(operation: Operation) -> resources.Operation:
    return {
        "id": str(operation.pk),
        "kind": operation.kind,
        "state": operation.state,
        "badge": show_badge(operation.badge),  # type: ignore[attr-defined]
        "about": _subject(operation),
        "requested_by": operation.requested_by,
        "requested_at": moment(operation.requested_at),
        "sent_at": moment(operation.sent_at),
        "accepted_at": moment(operation.accepted_at),
        "finished_at": moment(operation.finished_at),
        "mms_operation_id": operation.mms_operation_id,
        "attempts": operation.attempts,
        "retry_of": str(operation.retry_of_id) if operation.retry_of_id else None,
        "error": operation.error_message,
        "error_code": operation.error_code,
    }


def show_operation_whole(operation: Operation) -> resources.OperationDetail:
    """With the details of its failure, and what was asked for."""
    asked = {name: source(value) if name == "url" else value for name, value in operation.body.items()}
    details = redact_keys(operation.error_details)
    return {**show_operation(operation), "asked": redact_keys(asked), "error_details": details}


def show_badge(badge: Badge) -> common.Badge:
    """The state as the pages show it: in a word, since when, why, and how old the news is."""
    return {
        "state": badge.state,
        "label": badge.label,
        "since": moment(badge.since),
        "reason": badge.reason,
        "stale_since": moment(badge.stale_since),
    }


def show_registry(row: Any) -> settings.Registry:
    """A registry whose `kept` says whether there is a password; never the password."""
    return {
        "id": row.pk,
        "name": row.name,
        "location": row.location,
        "user": row.user,
        "password": secret_state(row.kept),
        **secret_of(row),
    }


def show_cluster(row: Any) -> settings.Cluster:
    """A cluster whose `kept` says whether there is a kubeconfig; never the kubeconfig."""
    return {
        "id": row.pk,
        "name": row.name,
        "pull_secret": row.pull_secret,
        "production": row.production,
        "kube_config": secret_state(row.kept),
        **secret_of(row),
    }


def show_server(account: HostingAccount) -> settings.Server:
    """The server of an account, without its secrets."""
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
        "token": secret_state(bool(account.token)),
        "client_secret": secret_state(bool(account.client_secret)),
        **secret_of(account),
    }


def secret_state(kept: bool) -> common.SecretState:
    """Return the word that stands for a secret."""
    return "set" if kept else "not set"


def secret_of(row: Any) -> settings.Secret:
    """Return when the secret of a row was set, and by whom."""
    return {"secret_set_at": moment(row.secret_set_at), "secret_set_by": row.secret_set_by}


def source(url: str) -> str:
    """Where a file comes from, without what opens it there: no query, no name, no password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    if is_file_url(url):
        digest, _, name = parts.path.rpartition("/files/")[2].partition("/")
        return f"uploaded: {unquote(name)} (sha256 {digest})"
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def moment(when: datetime | None) -> str | None:
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
        "badge": show_badge(row.badge),
        "description": row.description,
        "created_by": row.created_by,
        "created_at": moment(row.created_at),
        "added_at": moment(row.added_at),
        "seen_at": moment(row.seen_at),
        "vanished_at": moment(row.vanished_at),
    }
