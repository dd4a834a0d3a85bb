"""Links between mirrored rows: manifest to models, image to manifest, service to image. In bulk."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count

from deployments.models import HostingAccount, Manifest, RegisteredModel

Version = tuple[datetime, int]  # creation time, primary key
EARLIEST = datetime.min.replace(tzinfo=UTC)


def primary_keys(account: HostingAccount, of: type[Any], only: list[str] | None = None) -> dict[str, int]:
    """Return the primary keys of an account's rows of one class, by server id: of all, or of few with these ids."""
    known = of._default_manager.filter(account=account).exclude(mms_id=None)
    if only is not None:
        known = known.filter(mms_id__in=set(only))
    return dict(known.values_list("mms_id", "pk"))


def link_models(account: HostingAccount) -> None:
    """Link manifests to models that they lack. A name refers to the newest version at the manifest's creation."""
    manifests = Manifest.objects.filter(account=account).exclude(mms_id=None).annotate(linked=Count("models"))
    incomplete = [m for m in manifests.only("model_ids", "created_at") if m.linked < len(m.model_ids)]
    if not incomplete:
        return
    ids, versions = _models(account)
    link = Manifest.models.through
    pairs = {
        (manifest.pk, model)
        for manifest in incomplete
        for named in manifest.model_ids
        if (model := ids.get(named) or _newest(versions.get(named, []), manifest.created_at))
    }
    link._default_manager.bulk_create(
        [link(manifest_id=manifest, registeredmodel_id=model) for manifest, model in sorted(pairs)],
        ignore_conflicts=True,
    )


def _models(account: HostingAccount) -> tuple[dict[str, int], dict[str, list[Version]]]:
    """Return the account's models: primary keys by server id, and all versions by name."""
    ids: dict[str, int] = {}
    versions: dict[str, list[Version]] = defaultdict(list)
    known = RegisteredModel.objects.filter(account=account).exclude(mms_id=None).order_by("version", "pk")
    for pk, mms_id, name, created_at in known.values_list("pk", "mms_id", "name", "created_at"):
        ids[str(mms_id)] = pk
        versions[name].append((created_at or EARLIEST, pk))
    return ids, versions


def _newest(versions: Iterable[Version], at: datetime | None) -> int | None:
    """Return the newest of the versions (in ascending order) that existed at the time."""
    existing = [pk for created, pk in versions if at is None or created <= at]
    return existing[-1] if existing else None
