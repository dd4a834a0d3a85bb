"""Sample images of one account."""

from datetime import datetime
from typing import Any

from dashboard.ops.seed.history.operations import add_operation
from dashboard.ops.seed.history.story import Story
from deployments.models import Image, Manifest
from deployments.models.operation import Kind, State


def build(story: Story, manifest: Manifest, at: datetime, state: State = State.SUCCEEDED, **more: Any) -> Image:
    """Add an image and the operation that builds it. Return the image."""
    registry = story.registries[0 if story.world.chance(0.85) else -1]
    image = Image(
        account=story.account,
        created_by=story.scientist(),
        manifest=manifest,
        registry=registry,
        registry_location=registry.location,
        registry_user=registry.user,
        description=manifest.description,
    )
    story.images.append(image)
    story.at(image, added_at=at)
    add_build(story, image, at, state, **more)
    return image


def add_build(story: Story, image: Image, at: datetime, state: State = State.SUCCEEDED, **more: Any) -> None:
    """Add an operation that builds the image, or builds it again after a failure."""
    chosen = {"manifest": image.manifest, "registry": image.registry, "description": image.description}
    operation = add_operation(story, Kind.CREATE_IMAGE, image, chosen, image.created_by, at, state, **more)
    if state == State.SUCCEEDED and operation.finished_at:
        story.seen(image, operation.finished_at)
        image.digest = f"sha256:{story.world.hexadecimal(64)}" if story.reports_health else ""
