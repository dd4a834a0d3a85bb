"""Types of the responses about accounts and their settings, users and the audit log."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from dashboard.access.models import Role, Source
from dashboard.api.openapi.common import Id, Moment, Page, SecretState, choices, like
from dashboard.audit.models import AuditEntry
from deployments.models import HostingAccount


class SeenAt(TypedDict):
    """When each list was last read in full."""

    models: Moment | None
    manifests: Moment | None
    images: Moment | None
    services: Moment | None


class ListErrors(TypedDict):
    """Reasons why lists couldn't be read, by list. Empty if all could."""

    models: str
    manifests: str
    images: str
    services: str


class Account(TypedDict):
    """A hosting account."""

    name: Annotated[str, like("local")]
    role: Annotated[str, like("Data scientist", "The role of the token's owner.")]
    reached_at: Moment | None
    error: Annotated[str, like("", "Why the server can't be reached, or empty.")]
    next_attempt_at: Annotated[Moment | None, like(None, "Time of the next attempt, while the server is paused.")]
    token_refused: Annotated[bool, like(False, "The server refused the dashboard's credentials.")]
    seen_at: SeenAt
    list_errors: ListErrors


class PauseEnded(TypedDict):
    """The confirmation that the server is called again."""

    pause: Annotated[Literal["ended", "none"], like("ended", "`none` if the server wasn't paused.")]


class AccountDetail(Account):
    """A hosting account with the names that forms accept."""

    registries: Annotated[list[str], like(["our registry"])]
    clusters: Annotated[list[str], like(["this machine"])]


class AccountList(TypedDict):
    accounts: list[Account]


class Secret(TypedDict):
    """Time of the last change of a secret, and its author."""

    secret_set_at: Moment | None
    secret_set_by: Annotated[str, like("otto")]


class Registry(Secret):
    """A registry that images are pushed to."""

    id: Id
    name: Annotated[str, like("our registry")]
    location: Annotated[str, like("registry.example/team")]
    user: Annotated[str, like("robot")]
    password: SecretState


class Cluster(Secret):
    """A cluster that services run on."""

    id: Id
    name: Annotated[str, like("this machine")]
    pull_secret: Annotated[str, like("local")]
    production: Annotated[bool, like(False)]
    kube_config: SecretState


class Named(TypedDict):
    """A registry or cluster for readers who may only select it."""

    name: Annotated[str, like("our registry")]


class Server(Secret):
    """The server of a hosting account."""

    base_url: Annotated[str, like("https://mms.example")]
    subscription: str
    resource_group: str
    hosting_account: str
    api_version: Annotated[str, like("2017-06-01-privatepreview")]
    sign_in: Annotated[str, choices(HostingAccount.SignIn)]
    tenant: str
    client_id: str
    scope: str
    authority: str
    token: SecretState
    client_secret: SecretState


class AddedAccount(Server):
    """A new hosting account and its server."""

    name: Annotated[str, like("local")]


class RegistryList(TypedDict):
    registries: list[Registry | Named]


class ClusterList(TypedDict):
    clusters: list[Cluster | Named]


class ConnectionTest(TypedDict):
    """The result of a connection test."""

    works: bool
    says: Annotated[str, like("The registry accepts the password.")]
    advice: Annotated[str, like("", "What to do about it, or empty.")]


class Member(TypedDict):
    """A member of a hosting account."""

    id: Id
    name: Annotated[str, like("nina")]
    role: Annotated[str, choices(Role)]
    source: Annotated[str, choices(Source)]
    can_sign_in: bool


class MemberList(TypedDict):
    members: list[Member]


class User(TypedDict):
    """A user or service account."""

    id: Id
    name: Annotated[str, like("nina")]
    can_sign_in: bool
    administrator: bool
    machine: Annotated[bool, Field(description="A service account: it has no password and can't sign in.")]
    roles: Annotated[list[str], like(["local: Data scientist"])]


class UserList(Page):
    people: list[User]


class AuditRecord(TypedDict):
    """One entry of the audit log."""

    id: Id
    at: Moment | None
    actor: Annotated[str, like("sam")]
    via: Annotated[str, like("api", "page, api, mms, command, provider or system.")]
    action: Annotated[str, like("create_image")]
    account_name: Annotated[str, like("local")]
    target: str
    address: Annotated[str, like("192.0.2.7")]
    result: Annotated[str, choices(AuditEntry.Result)]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditLog(Page):
    entries: list[AuditRecord]
