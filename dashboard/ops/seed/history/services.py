"""Sample services of one account, with their revisions."""

from datetime import datetime, timedelta

from dashboard.ops.seed.history.operations import add_operation
from dashboard.ops.seed.history.story import Story
from deployments.models import Image, Operation, Service
from deployments.models.operation import Kind, State


def deploy(
    story: Story, name: str, image: Image, at: datetime, production: bool = False, state: State = State.SUCCEEDED
) -> Service:
    """Add a service and the operation that creates it. Return the service."""
    cluster = story.clusters[production]
    by = story.operator if production else story.scientist()
    service = Service(account=story.account, name=name, image=image, cluster=cluster, created_by=by)
    story.services.append(service)
    story.at(service, added_at=at)
    chosen = {"name": name, "image": image, "cluster": cluster}
    operation = add_operation(story, Kind.CREATE_SERVICE, service, chosen, by, at, state)
    if state == State.SUCCEEDED and operation.finished_at:
        story.seen(service, operation.finished_at)
        service.state, service.updated_at = "Succeeded", operation.finished_at
        _report(story, service)
        _add_revision(story, service, image, operation)
    return service


def update(story: Story, service: Service, image: Image, at: datetime, state: State = State.SUCCEEDED) -> Operation:
    """Add and return an operation that updates the service to the image."""
    by = story.operator if service.cluster and service.cluster.production else story.scientist()
    number = len(service.revisions) + 1
    chosen = {"service": service, "image": image}
    operation = add_operation(story, Kind.UPDATE_SERVICE, service, chosen, by, at, state, revision=number)
    if state == State.SUCCEEDED and operation.finished_at:
        service.image, service.updated_at = image, operation.finished_at
        _add_revision(story, service, image, operation)
    elif state == State.FAILED:
        _add_revision(story, service, image, operation, "failed", operation.error_message)
    elif state == State.RUNNING:
        _add_revision(story, service, image, operation, "starting")
    return operation


def delete(story: Story, service: Service, at: datetime, state: State = State.SUCCEEDED) -> None:
    """Add an operation that deletes the service."""
    operation = add_operation(story, Kind.DELETE_SERVICE, service, {"service": service}, service.created_by, at, state)
    if state == State.SUCCEEDED:
        service.vanished_at, service.health, service.scoring_key = operation.finished_at, "", None


def _report(story: Story, service: Service) -> None:
    """Set health, scoring URL and key, which not every server reports."""
    if story.reports_health:
        service.health = "healthy"
        service.scoring_uri = f"{story.account.base_url}/scoring/{service.mms_id}/score"
        service.scoring_key = story.world.hexadecimal(40)


def _add_revision(
    story: Story, service: Service, image: Image, operation: Operation, state: str = "active", detail: str = ""
) -> None:
    """Insert a new revision in front. If it is active, it replaces the previously active one."""
    if not story.reports_health:
        return
    end = operation.finished_at or operation.accepted_at or story.world.now
    if state == "active":
        for revision in service.revisions:
            if revision["state"] == "active":
                revision |= {"state": "stopped", "stopped_at": (end + timedelta(seconds=31)).isoformat()}
    service.revisions.insert(
        0,
        {
            "number": len(service.revisions) + 1,
            "image_id": image.mms_id,
            "state": state,
            "detail": detail,
            "created_at": (end - timedelta(seconds=20)).isoformat(),
            "activated_at": end.isoformat() if state == "active" else "",
            "stopped_at": end.isoformat() if state == "failed" else "",
        },
    )
