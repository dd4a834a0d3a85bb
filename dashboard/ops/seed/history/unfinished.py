"""Sample operations of every kind in every state, and resources with problems."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle

from dashboard.ops.seed.catalog import Portfolio, Project
from dashboard.ops.seed.history import images, manifests, models, services
from dashboard.ops.seed.history.story import Story
from dashboard.ops.seed.world import DAYS
from deployments.client.wire import Phase
from deployments.models import Image, Service
from deployments.models.operation import OPEN, Kind, State

Pair = tuple[Kind, State]
# Pairs for the account with a healthy server. The other accounts share the remaining ones.
LIVELY: tuple[Pair, ...] = (
    (Kind.REGISTER_MODEL, State.SENDING),
    (Kind.REGISTER_MODEL, State.FAILED),
    (Kind.CREATE_MANIFEST, State.QUEUED),
    (Kind.CREATE_IMAGE, State.RUNNING),
    (Kind.CREATE_IMAGE, State.NOT_STARTED),
    (Kind.CREATE_IMAGE, State.FAILED),
    (Kind.CREATE_IMAGE, State.CANCELED),
    (Kind.CREATE_SERVICE, State.RUNNING),
    (Kind.CREATE_SERVICE, State.FAILED),
    (Kind.UPDATE_SERVICE, State.QUEUED),
    (Kind.UPDATE_SERVICE, State.RUNNING),
    (Kind.UPDATE_SERVICE, State.UNCERTAIN),
    (Kind.UPDATE_SERVICE, State.FAILED),
    (Kind.DELETE_SERVICE, State.RUNNING),
    (Kind.DELETE_SERVICE, State.SUCCEEDED),
    (Kind.DELETE_SERVICE, State.FAILED),
)
AGE_SECONDS = {State.QUEUED: 4, State.SENDING: 1, State.NOT_STARTED: 20, State.RUNNING: 95, State.UNCERTAIN: 900}
CANARIES = ("canary", "shadow", "next", "eu")  # name suffixes of services that are being created
TROUBLES = (
    (
        "unhealthy",
        "It is running, but its health check returned 500: run() failed: KeyError: 'store_id'. It was restarted twice.",
    ),
    (
        "crashed",
        "It ended with SIGKILL (it was killed, or the machine ran out of memory); check its log for the cause.",
    ),
    ("starting", "It is starting."),
)


def pairs_except(excluded: tuple[Pair, ...]) -> list[Pair]:
    """Return every combination of kind and state except the excluded ones."""
    return [(kind, state) for kind in Kind for state in State if (kind, state) not in excluded]


def add(story: Story, portfolio: Portfolio, pairs: list[Pair]) -> None:
    """Add one operation for each pair."""
    drafts = cycle(Project(name, 1, description, ("draft",)) for name, description in portfolio.drafts)
    free = [service for service in story.services if service.mms_id and not service.vanished_at]
    for kind, state in pairs:
        at = story.account.reached_at or story.world.now
        age = AGE_SECONDS.get(state, 60 * story.world.random.uniform(60, 1400))
        _add(story, kind, state, at - timedelta(seconds=age), drafts, free)


def _add(story: Story, kind: Kind, state: State, at: datetime, drafts: Iterator[Project], free: list[Service]) -> None:
    choose = story.world.random.choice
    match kind:
        case Kind.REGISTER_MODEL:
            models.register(story, next(drafts), None, at, state)
        case Kind.CREATE_MANIFEST:
            known = choose([model for model in story.models if model.mms_id])
            compose_for = Project(known.name, 1, known.description, ())
            manifests.compose(story, compose_for, [known], story.assets[:2], at, state)
        case Kind.CREATE_IMAGE:
            images.build(story, choose([manifest for manifest in story.manifests if manifest.mms_id]), at, state)
        case Kind.CREATE_SERVICE:
            image = choose([image for image in story.images if image.mms_id])
            services.deploy(story, f"{_model_name(image)}-{choose(CANARIES)}", image, at, state=state)
        case Kind.UPDATE_SERVICE:
            service = _service(free, state)
            name = _model_name(service.image)
            images_of_it = [image for image in story.images if image.mms_id and _model_name(image) == name]
            services.update(story, service, images_of_it[-1], at, state)
        case Kind.DELETE_SERVICE:
            services.delete(story, _service(free, state), at, state)


def _model_name(image: Image | None) -> str:
    """Return the name of the model in the image. The description consists of the name and the version."""
    return image.description.rpartition(" ")[0] if image else ""


def _service(free: list[Service], state: State) -> Service:
    """Return a service without an open operation. If `state` is open or succeeded, the service isn't reused."""
    return free[-1] if state in {State.FAILED, State.CANCELED} else free.pop()


def vary(story: Story) -> None:
    """Make some services unhealthy, or give them other states if the server doesn't report health."""
    busy = [operation.service for operation in story.operations if operation.state in OPEN]
    steady = [row for row in story.services if row.mms_id and not row.vanished_at and not _is_in(row, busy)]
    if story.reports_health:
        for service, (health, detail) in zip(steady, TROUBLES, strict=False):
            service.health, service.health_detail = health, detail
    else:
        words = [*(phase.value.replace("_", " ").title().replace(" ", "") for phase in Phase), "Degraded"]
        for service, word in zip(steady, words, strict=False):
            service.state = word


def _is_in(row: Service, others: list[Service | None]) -> bool:
    """Return True if `row` is in `others`. Compared by identity, because unsaved rows have no primary key."""
    return any(row is other for other in others)


def retire(story: Story, project: Project) -> None:
    """Add a pilot project that the server no longer lists: a model, its manifest and its image."""
    pilot = replace(project, name=f"{project.name[:26]}-pilot", tags=("pilot",))
    at, gone = story.world.ago(days=DAYS - 1), story.world.ago(days=DAYS / 2)
    model = models.register(story, pilot, 1, at)
    manifest = manifests.compose(story, pilot, [model], story.assets[:2], story.world.later(at, 5, 9))
    image = images.build(story, manifest, story.world.later(at, 12, 20))
    model.vanished_at = manifest.vanished_at = image.vanished_at = gone
    model.seen_at = manifest.seen_at = image.seen_at = gone
