"""Six weeks of work on the projects of one account, as they end when all goes well in the end."""

from datetime import datetime

from dashboard.ops.seed.catalog import Project
from dashboard.ops.seed.history import images, manifests, models, services
from dashboard.ops.seed.history.story import Story
from deployments.models import Asset, Image, Manifest, RegisteredModel, Service
from deployments.models.operation import State

FAILED_BUILDS = 0.16  # of all builds
FAILED_UPDATES = 0.12
OUTSIDE = 0.06  # of all versions are registered outside the dashboard


def tell(story: Story, project: Project, newest: float) -> Service | None:
    """Add all versions of a project, and what was made of them, until `newest` days ago. Returns its service."""
    times = story.world.work_times(project.versions, newest)
    assets = manifests.add_assets(story, project, times[0])
    service: Service | None = None
    for version, at in enumerate(times, start=1):
        if story.world.chance(OUTSIDE):
            models.appear(story, project, version, at)
            continue
        model = models.register(story, project, version, at)
        if _is_released(story, project, version):
            service = _release(story, project, model, assets, at, service)
    return service


def _is_released(story: Story, project: Project, version: int) -> bool:
    """Return True for the first version and for most others; a project without a service is rarely built."""
    return story.world.chance(0.25) if not project.service else version == 1 or story.world.chance(0.7)


def _release(
    story: Story,
    project: Project,
    model: RegisteredModel,
    assets: list[Asset],
    at: datetime,
    service: Service | None,
) -> Service | None:
    manifest = manifests.compose(story, project, [model], assets, story.world.later(at, 4, 25))
    image, at = _build(story, manifest, story.world.later(at, 26, 40))
    if image is None or not project.service:
        return service
    at = story.world.later(at, 8, 20)
    if service is None:
        return services.deploy(story, project.service, image, at, project.production)
    if story.world.chance(FAILED_UPDATES):
        services.update(story, service, image, at, State.FAILED)
        at = story.world.later(at, 6, 30)
        if story.world.chance(0.4):  # given up; the earlier image goes on
            return service
    services.update(story, service, image, at)
    return service


def _build(story: Story, manifest: Manifest, at: datetime) -> tuple[Image | None, datetime]:
    """Add an image, some after a failed build, a few never finished. Returns it and when it was done."""
    if not story.world.chance(FAILED_BUILDS):
        return images.build(story, manifest, at), story.world.later(at, 1, 7)
    image = images.build(story, manifest, at, State.FAILED)
    if story.world.chance(0.3):
        return None, at
    again = story.world.later(at, 9, 45)
    images.order(story, image, again, retry_of=story.operations[-1])
    return image, story.world.later(again, 1, 7)
