"""Field types that several response bodies share. Each has the JSON schema that the document shows."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict  # pydantic can't read typing.TypedDict before Python 3.12

SecretState = Literal["set", "not set"]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


def choices(kind: Any) -> WithJsonSchema:
    """Return the schema of a string that is one of Django's choices."""
    return WithJsonSchema({"type": "string", "enum": list(kind.values)})


def like(example: Any, description: str = "") -> Any:
    """Return the annotation of a field with an example."""
    return Field(examples=[example], description=description or None)


Id = Annotated[int, like(12, "The dashboard's number for it.")]
Name = Annotated[str, like("iris")]
Username = Annotated[str, like("sam", "Empty: made outside the dashboard.")]


class Badge(TypedDict):
    """The state as the pages show it."""

    state: Annotated[str, like("succeeded")]
    label: Annotated[str, like("Succeeded")]
    since: Moment | None
    reason: Annotated[str, like("", "Reason for the state, and why it may be stale. Can be empty.")]
    stale_since: Annotated[Moment | None, like(None, "Set while the state may be out of date.")]


class Reference(TypedDict):
    """Another resource, by id and name."""

    id: Id
    name: Name


class Page(TypedDict):
    """The position in a list."""

    found: Annotated[int, Field(description="How many there are on all pages.")]
    page: int
    pages: int
    next: Annotated[str | None, like(None, "The path of the next page.")]
