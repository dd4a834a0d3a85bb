"""Collector of the sample rows of one account, which are saved together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, TypeAlias
from uuid import UUID

from django.db.models import Model

from dashboard.ops.seed.world import World
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
from deployments.operations.requests import to_body

Resource: TypeAlias = RegisteredModel | Manifest | Image | Service
BATCH = 400  # rows per statement


@dataclass
class Story:
    """One account: its team, its rows in order of creation, and the values of automatic timestamps."""

    world: World
    account: HostingAccount
    scientists: list[str]  # names of the users who register, build and deploy
    operator: str  # name of the user who deploys to production
    registries: list[RegistryInfo]
    clusters: dict[bool, Cluster]  # True: the production cluster
    reports_health: bool = True  # the server reports health, revisions and digests, as the bundled one does
    models: list[RegisteredModel] = field(default_factory=list)
    assets: list[Asset] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    chosen: dict[UUID, dict[str, Any]] = field(default_factory=dict)  # arguments by operation id, as rows
    used: dict[int, tuple[list[RegisteredModel], list[Asset]]] = field(default_factory=dict)  # by id() of the manifest
    _times: list[tuple[Model, dict[str, datetime]]] = field(default_factory=list)

    def at(self, row: Model, **times: datetime) -> None:
        """Record values for columns that an insert fills with the current time. `save` sets them afterwards."""
        self._times.append((row, times))

    def scientist(self) -> str:
        return self.world.random.choice(self.scientists)

    def seen(self, row: Resource, created_at: datetime) -> None:
        """Mark the row as created on the server at `created_at`, and as listed when the server was last read."""
        row.mms_id, row.created_at = str(self.world.uuid()), created_at
        row.seen_at = self.account.services_seen_at

    def save(self) -> None:
        """Insert all rows, each after the rows that it refers to."""
        for rows in (self.models, self.assets, self.manifests, self.images, self.services):
            _insert(rows)
        self._link_manifests()
        for operation in self.operations:
            operation.body = to_body(self.chosen[operation.pk])
        _insert(self.operations)
        self._set_times()

    def _link_manifests(self) -> None:
        with_models, with_assets = Manifest.models.through, Manifest.assets.through
        links = [(manifest, *self.used[id(manifest)]) for manifest in self.manifests]
        _insert(with_models(manifest_id=m.pk, registeredmodel_id=model.pk) for m, used, _ in links for model in used)
        _insert(with_assets(manifest_id=m.pk, asset_id=asset.pk) for m, _, used in links for asset in used)

    def _set_times(self) -> None:
        for kind, recorded in groupby(
            sorted(self._times, key=lambda item: str(type(item[0]))), lambda item: type(item[0])
        ):
            rows = []
            for row, times in recorded:
                for name, value in times.items():
                    setattr(row, name, value)
                rows.append(row)
            kind._default_manager.bulk_update(rows, list(times), batch_size=BATCH)


def _insert(rows: Iterable[Any]) -> None:
    if batch := list(rows):
        type(batch[0])._default_manager.bulk_create(batch, batch_size=BATCH)
