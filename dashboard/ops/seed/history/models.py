"""Sample models of one account."""

from datetime import datetime, timedelta
from typing import Any

from dashboard.ops.seed.catalog import DOMAIN, Project
from dashboard.ops.seed.history.operations import add_operation
from dashboard.ops.seed.history.story import Story
from deployments.models import RegisteredModel
from deployments.models.operation import Kind, State

MIME_TYPES = {"pkl": "application/octet-stream", "zip": "application/zip"}
NOTES = ("", "", "Retrained on data until last Sunday.", "New features: holidays and school breaks.",
         "Same features, fewer trees: half the size.", "Fixes the target leak found in review.")  # fmt: skip


def register(
    story: Story, project: Project, version: int | None, at: datetime, state: State = State.SUCCEEDED, **more: Any
) -> RegisteredModel:
    """Add a version of the project's model and the operation that registers it. Return the version."""
    model = _model(story, project, version)
    by = model.created_by = story.scientist()
    if state == State.SUCCEEDED:
        story.seen(model, at + timedelta(seconds=1))
    else:
        model.version = None
    story.at(model, added_at=at)
    columns = ("name", "url", "tags", "description", "mime_type", "unpack")
    chosen = {name: getattr(model, name) for name in columns}
    add_operation(story, Kind.REGISTER_MODEL, model, chosen, by, at, state, **more)
    return model


def register_outside(story: Story, project: Project, version: int, at: datetime) -> RegisteredModel:
    """Add a version that was registered outside the dashboard."""
    model = _model(story, project, version)
    story.seen(model, at)
    story.at(model, added_at=at)
    return model


def _model(story: Story, project: Project, version: int | None) -> RegisteredModel:
    note = story.world.random.choice(NOTES)
    stem, _, ending = project.file.rpartition(".")
    model = RegisteredModel(
        account=story.account,
        name=project.name,
        version=version,
        url=f"https://models.{DOMAIN}/{project.name}/{story.world.hexadecimal(8)}/{stem}.{ending}",
        tags=[*project.tags, *(["candidate"] if story.world.chance(0.15) else [])],
        description=f"{project.description} {note}".strip(),
        mime_type=MIME_TYPES[ending],
        unpack=ending == "zip",
    )
    story.models.append(model)
    return model
