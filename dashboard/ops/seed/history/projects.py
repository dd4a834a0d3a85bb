"""Sample history of projects: completed registrations, builds and deployments, some after failures."""

from datetime import datetime

from dashboard.ops.seed.catalog import Project
from dashboard.ops.seed.history import images, manifests, models, services
from dashboard.ops.seed.history.story import Story
from deployments.models import Asset, Image, Manifest, RegisteredModel, Service
from deployments.models.operation import State

FAILED_BUILDS = 0.16  # share of builds
FAILED_UPDATES = 0.12  # share of updates
OUTSIDE = 0.06  # share of versions registered outside the dashboard


def add_history(story: Story, project: Project, newest: float) -> Service | None:
    """Add the versions of a project and their releases until `newest` days ago. Return its service, if any."""
    times = story.world.work_times(project.versions, newest)
    assets = manifests.add_assets(story, project, times[0])
    service: Service | None = None
    for version, at in enumerate(times, start=1):
        if story.world.chance(OUTSIDE):
            models.register_outside(story, project, version, at)
            continue
        model = models.register(story, project, version, at)
        if _is_released(story, project, version):
            service = _release(story, project, model, assets, at, service)
    return service


def _is_released(story: Story, project: Project, version: int) -> bool:
    """Return True if the version is built: the first and most others, or a few if the project has no service."""
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
        if story.world.chance(0.4):  # abandoned: the service continues to run the previous image
            return service
    services.update(story, service, image, at)
    return service


def _build(story: Story, manifest: Manifest, at: datetime) -> tuple[Image | None, datetime]:
    """Add an image. Return it and its completion time. The image is None after a failed build without a retry."""
    if not story.world.chance(FAILED_BUILDS):
        return images.build(story, manifest, at), story.world.later(at, 1, 7)
    image = images.build(story, manifest, at, State.FAILED)
    if story.world.chance(0.3):
        return None, at
    again = story.world.later(at, 9, 45)
    images.add_build(story, image, again, retry_of=story.operations[-1])
    return image, story.world.later(again, 1, 7)
