"""Types of the responses about models, assets, manifests, images, services and operations.

Serializers return them, and the schemas of the document are derived from them.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from dashboard.api.openapi.common import Badge, Id, Moment, Name, Page, Reference, Username, choices, like
from deployments.models.operation import Kind, State

Noun = Literal["model", "manifest", "image", "service"]
OperationId = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]


class Subject(Reference):
    """The resource that an operation creates, changes or deletes."""

    noun: Noun


class Mirrored(TypedDict):
    """Fields of every resource that mirrors one of the server."""

    id: Id
    mms_id: Annotated[str | None, like("0c5e7a", "The server's id, once it has given one.")]
    state: Annotated[str, like("succeeded", "The state of its badge.")]
    badge: Badge
    description: Annotated[str, like("Iris classifier")]
    created_by: Username
    created_at: Moment | None
    added_at: Moment | None
    seen_at: Moment | None
    vanished_at: Annotated[Moment | None, like(None, "Set once the server no longer lists it.")]


class Model(Mirrored):
    """One version of a model."""

    name: Name
    version: Annotated[int | None, like(3)]
    source: Annotated[str, like("https://files.example/iris.pkl", "Where its file comes from, without credentials.")]
    tags: Annotated[list[str], like(["flowers"])]
    mime_type: Annotated[str, like("application/octet-stream")]
    unpack: Annotated[bool, like(False)]


class Asset(TypedDict):
    """A file that manifests can include."""

    id: Id
    name: Annotated[str, like("score-py")]
    source: Annotated[str, like("uploaded: score.py (sha256 ...)", "Where its file comes from, without credentials.")]
    mime_type: Annotated[str, like("text/x-python")]
    unpack: Annotated[bool, like(False)]
    created_by: Username
    added_at: Moment | None


class Manifest(Mirrored):
    """Models, assets, a driver script and a runtime."""

    models: list[Reference]
    driver_program: Annotated[str, like("score-py")]
    runtime_type: Annotated[str, like("ScikitPython")]


class ManifestDetail(Manifest):
    """A manifest with its contents."""

    contents: Annotated[dict[str, Any], Field(description="The manifest as the server has it.")]


class Image(Mirrored):
    """An image built from a manifest."""

    manifest: Reference | None
    models: list[Reference]
    registry: Annotated[str | None, like("our registry")]
    registry_location: Annotated[str, like("registry.example/team")]
    digest: Annotated[str, like("sha256:...", "Empty: not reported.")]


class Service(Mirrored):
    """A web service that runs an image."""

    name: Annotated[str, like("iris-live")]
    image: Reference | None
    models: list[Reference]
    cluster: Annotated[str | None, like("this machine")]
    scoring_uri: Annotated[str, like("https://models.example/scoring/7/score")]
    updated_at: Moment | None
    revisions: Annotated[list[dict[str, Any]], Field(description="As the server reports them.")]


class Operation(TypedDict):
    """One request to change something, from queueing to its end."""

    id: OperationId
    kind: Annotated[str, choices(Kind)]
    state: Annotated[str, choices(State)]
    badge: Badge
    about: Subject | None
    requested_by: Annotated[str, like("sam")]
    requested_at: Moment | None
    sent_at: Moment | None
    accepted_at: Moment | None
    checked_at: Annotated[Moment | None, like(None, "Time of the server's last response about it.")]
    finished_at: Moment | None
    mms_operation_id: Annotated[str, Field(description="The server's id of the operation, or empty.")]
    attempts: Annotated[int, like(1)]
    retry_of: Annotated[OperationId | None, like(None)]
    error: Annotated[str, like("", "Why it failed, or empty.")]
    error_code: str


class OperationDetail(Operation):
    """An operation with its request and the details of its failure."""

    asked: Annotated[dict[str, Any], Field(description="The fields of the request.")]
    error_details: Annotated[list[Any], like([])]


class ModelList(Page):
    models: list[Model]


class AssetList(Page):
    assets: list[Asset]


class ManifestList(Page):
    manifests: list[Manifest]


class ImageList(Page):
    images: list[Image]


class ServiceList(Page):
    services: list[Service]


class OperationList(Page):
    operations: list[Operation]


class Score(TypedDict):
    """The response of a service to a test request."""

    status: Annotated[int, like(200, "The HTTP status; 0 if the service didn't respond.")]
    problem: Annotated[str, like("", "Why there is no usable response, or empty.")]
    milliseconds: Annotated[float, like(12.5)]
    answer: Annotated[Any, like([0], "The response body: JSON where it is JSON, otherwise text.")]
    cut: Annotated[bool, like(False, "Only the beginning is returned.")]


class ScoringKey(TypedDict):
    """The address of a service and its primary scoring key."""

    scoring_uri: Annotated[str, like("https://models.example/scoring/7/score")]
    key: str


class RefreshRequested(TypedDict):
    """The confirmation of a refresh."""

    refresh: Literal["asked"]


class Route(TypedDict):
    """One operation of the API."""

    method: Annotated[str, like("GET")]
    path: Annotated[str, like("/v1/accounts/{account}/models/")]
    needs: Annotated[str, like("Viewer")]
    does: str


class RouteList(TypedDict):
    routes: list[Route]
