"""Sample assets and manifests of one account."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from dashboard.ops.seed.catalog import DOMAIN, Project
from dashboard.ops.seed.history.operations import add_operation
from dashboard.ops.seed.history.story import Story
from deployments.models import Asset, Manifest, RegisteredModel
from deployments.models.operation import Kind, State

FILES = (("score", "score.py", "text/x-python"), ("schema", "schema.json", "application/json"))
MORE_FILES = (
    ("holidays", "holidays.csv", "text/csv"),
    ("labels", "labels.json", "application/json"),
    ("helpers", "helpers.zip", "application/zip"),
)


def add_assets(story: Story, project: Project, at: datetime) -> list[Asset]:
    """Add a driver script, a schema, and sometimes another file. Return the assets, with the driver script first."""
    by = story.scientist()
    files = [*FILES, *([story.world.random.choice(MORE_FILES)] if story.world.chance(0.4) else [])]
    created = [
        Asset(
            account=story.account,
            name=name,
            url=f"https://models.{DOMAIN}/{project.name}/{story.world.hexadecimal(8)}/{file}",
            mime_type=mime_type,
            unpack=file.endswith(".zip"),
            created_by=by,
        )
        for name, file, mime_type in files
    ]
    for asset in created:
        story.at(asset, added_at=at)
    story.assets += created
    return created


def compose(
    story: Story,
    project: Project,
    models: Sequence[RegisteredModel],
    assets: Sequence[Asset],
    at: datetime,
    state: State = State.SUCCEEDED,
    **more: Any,
) -> Manifest:
    """Add a manifest and the operation that creates it. Return the manifest."""
    by = story.scientist()
    described = {"runtime_type": project.runtime, "description": f"{models[0].name} v{models[0].version}"}
    properties = {"pip_requirements": "\n".join(project.requirements), "conda_env_file": ""}
    manifest = Manifest(
        account=story.account,
        created_by=by,
        driver_program=assets[0].name,
        model_ids=[model.mms_id for model in models],
        asset_list=[
            {"id": asset.name, "url": asset.url, "mime_type": asset.mime_type, "unpack": asset.unpack}
            for asset in assets
        ],
        properties=properties,
        **described,
    )
    if state == State.SUCCEEDED:
        story.seen(manifest, at + timedelta(seconds=1))
    story.manifests.append(manifest)
    story.used[id(manifest)] = (list(models), list(assets))
    story.at(manifest, added_at=at)
    chosen = {"models": list(models), "assets": list(assets), "driver": assets[0], **properties, **described}
    add_operation(story, Kind.CREATE_MANIFEST, manifest, chosen, by, at, state, **more)
    return manifest
