"""The MMS client: one method per REST operation of the reference, and the extensions that some servers offer.

All methods raise `errors.MMSError`; which one says whether a request may be sent again. No Django here.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from deployments.client import errors, wire, wire_values
from deployments.client.http import ServerResponse
from deployments.client.transport import MAX_LIST_BYTES, BearerToken, Credential, Transport

log = logging.getLogger(__name__)
Item = TypeVar("Item")
LOG_PART_BYTES = 256 * 1024  # bytes of a log in one answer
IDEMPOTENCY_EXTENSION = "idempotency"


@dataclass(frozen=True)
class Accepted:
    """A write the server took. `operation_id` is "" where there is nothing to wait for, or no way to ask."""

    operation_id: str = ""
    is_pending: bool = False  # 202: it goes on after the answer


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """The resources of a list. Not `whole` where one of them made no sense: then nothing missing has vanished."""

    items: list[Item]
    is_complete: bool = True


@dataclass(frozen=True)
class LogText:
    body: bytes  # UTF-8, perhaps cut within a line or a letter
    position: int  # bytes; what to ask from next


class MMSClient:
    """Calls to one hosting account. To be closed; may be used by one thread at a time."""

    def __init__(
        self,
        base_url: str,
        subscription: str,
        resource_group: str,
        hosting_account: str,
        *,
        token: str | Credential,
        api_version: str,
        **limits: float,
    ):
        group = f"subscriptions/{_segment(subscription)}/resourceGroups/{_segment(resource_group)}"
        self.base = f"{base_url.rstrip('/')}/api/{group}/hostingAccounts/{_segment(hosting_account)}"
        self.api_version = api_version
        self.transport = Transport(BearerToken(token) if isinstance(token, str) else token, **limits)

    def __enter__(self) -> "MMSClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    @property
    def idempotent(self) -> bool:
        """Whether the last answer said that a repeated request with the same client request id has one effect."""
        return IDEMPOTENCY_EXTENSION in self.transport.extensions

    @property
    def called_at(self) -> datetime:
        """When the last call began."""
        return self.transport.called_at

    # --- writes ---------------------------------------------------------------------------------------------------

    def register_model(self, request: wire.NewModel, request_id: str) -> wire.Model:
        answer = self._send("POST", "models", request, request_id)
        return _read(answer, wire.Model.from_wire)

    def create_manifest(self, request: wire.NewManifest, request_id: str) -> wire.Manifest:
        answer = self._send("POST", "manifests", request, request_id)
        return _read(answer, wire.Manifest.from_wire)

    def create_image(self, request: wire.NewImage, request_id: str) -> Accepted:
        return _accepted(self._send("POST", "images", request, request_id))

    def create_service(self, request: wire.NewService, request_id: str) -> Accepted:
        return _accepted(self._send("POST", "services", request, request_id))

    def update_service(self, request: wire.ServiceUpdate, request_id: str) -> Accepted:
        return _accepted(self._send("PUT", f"services/{_segment(request.service_id)}", request, request_id))

    def delete_service(self, request: wire.ServiceDeletion, request_id: str) -> Accepted:
        return _accepted(self._send("DELETE", f"services/{_segment(request.service_id)}", None, request_id))

    # --- reads ----------------------------------------------------------------------------------------------------

    def list_models(self) -> Listing[wire.Model]:
        return self._list("models", wire.Model.from_wire)

    def list_manifests(self) -> Listing[wire.Manifest]:
        return self._list("manifests", wire.Manifest.from_wire)

    def list_images(self) -> Listing[wire.Image]:
        return self._list("images", wire.Image.from_wire)

    def list_services(self) -> Listing[wire.Service]:
        return self._list("services", wire.Service.from_wire)

    def get_model(self, model_id: str) -> wire.Model:
        return self._get("models", model_id, wire.Model.from_wire)

    def get_manifest(self, manifest_id: str) -> wire.Manifest:
        return self._get("manifests", manifest_id, wire.Manifest.from_wire)

    def get_image(self, image_id: str) -> wire.Image:
        return self._get("images", image_id, wire.Image.from_wire)

    def get_service(self, service_id: str) -> wire.Service:
        return self._get("services", service_id, wire.Service.from_wire)

    def get_operation(self, operation_id: str) -> wire.OperationStatus:
        return self._get("operations", operation_id, wire.OperationStatus.from_wire)

    # --- extensions: NotFound or NotOffered where a server lacks them ---------------------------------------------

    def get_service_key(self, service_id: str) -> str:
        """The key that the scoring URL takes as a bearer token."""
        return _read(self._call("GET", f"services/{_segment(service_id)}/keys"), wire.primary_key)

    def get_operation_log(self, operation_id: str, after: int) -> LogText:
        return self._log(f"operations/{_segment(operation_id)}/log", after=after)

    def get_service_log(self, service_id: str, revision: int | None, after: int) -> LogText:
        which = {"revision": revision} if revision else {}
        return self._log(f"services/{_segment(service_id)}/logs", after=after, **which)

    def cancel_operation(self, operation_id: str) -> None:
        self._call("DELETE", f"operations/{_segment(operation_id)}")

    # --- how ------------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, **more: Any) -> ServerResponse:
        params = {"api-version": self.api_version} | more.pop("params", {})
        return self.transport.call(method, f"{self.base}/{path}", params, **more)

    def _send(self, method: str, path: str, request: wire.Request | None, request_id: str) -> ServerResponse:
        body = request.to_wire() if request else None
        secrets = wire.secrets_in(request) if request else []
        return self._call(method, path, body=body, request_id=request_id, secrets=secrets)

    def _get(self, noun: str, resource_id: str, from_wire: Callable[[Any], Item]) -> Item:
        """One resource; the reference draws it as an array of one in places."""
        answer = self._call("GET", f"{noun}/{_segment(resource_id)}")
        return _read(answer, lambda data: from_wire(data[0] if isinstance(data, list) and len(data) == 1 else data))

    def _list(self, noun: str, from_wire: Callable[[Any], Item]) -> Listing[Item]:
        """All pages of a list, which together have the time and the size of one answer."""
        until, room = time.monotonic() + self.transport.deadline, MAX_LIST_BYTES
        answer = self._call("GET", noun, most=room, until=until)
        items: list[Any] = []
        pages = set()
        while True:
            part, next_page = _read(answer, wire.page)
            items += part
            if not next_page:
                return _listing(items, from_wire)
            if next_page in pages:
                raise errors.InvalidResponseError(f"The list of {noun} returned to an earlier page.")
            pages.add(next_page)
            room -= len(answer.body)
            answer = self._next(noun, self._own(next_page), room, until)

    def _next(self, noun: str, url: str, room: int, until: float) -> ServerResponse:
        """A further page of a list. What was too much, or took too long, is the list and not its last page."""
        try:
            return self.transport.call("GET", url, {}, most=room, until=until)
        except errors.ResponseTooLargeError as error:
            raise errors.ResponseTooLargeError(
                f"The list of {noun} is larger than {MAX_LIST_BYTES // 1024**2} MB."
            ) from error
        except (errors.NoResponseError, errors.UnreachableError) as error:
            if time.monotonic() < until:
                raise
            late = f"The list of {noun} was not complete after {self.transport.deadline:.0f} s."
            raise errors.NoResponseError(late) from error

    def _own(self, url: str) -> str:
        """The address of a next page, if it is the same server's: the token goes nowhere else."""
        try:
            whole, ours = urlsplit(urljoin(self.base, url)), urlsplit(self.base)
        except ValueError:
            raise errors.InvalidResponseError("The next page of the list has an invalid address.") from None
        if (whole.scheme, whole.netloc) != (ours.scheme, ours.netloc):
            raise errors.InvalidResponseError(
                "The next page of the list is on another server, where the token must not be sent."
            )
        return whole.geturl()

    def _log(self, path: str, after: int, **which: Any) -> LogText:
        answer = self._call("GET", path, params={"after": after, "limit": LOG_PART_BYTES, **which}, most=MAX_LIST_BYTES)
        position = wire_values.whole_number(answer.headers.get("X-Log-Position"))
        return LogText(answer.body, after + len(answer.body) if position is None else position)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _read(answer: ServerResponse, from_wire: Callable[[Any], Item]) -> Item:
    """What the answer says. Raises Unintelligible."""
    try:
        return from_wire(answer.json())
    except wire_values.MalformedPayloadError as error:
        raise errors.InvalidResponseError(f"The server's response isn't valid: {error}") from error
    except RecursionError:
        raise errors.InvalidResponseError("The server's response isn't valid: it is nested too deeply.") from None


def _listing(items: list[Any], from_wire: Callable[[Any], Item]) -> Listing[Item]:
    found, dropped = [], 0
    for item in items:
        try:
            found.append(from_wire(item))
        except (wire_values.MalformedPayloadError, RecursionError):
            dropped += 1
    if dropped and not found:
        raise errors.InvalidResponseError("The server's response isn't valid: nothing listed in it has a usable ID.")
    if dropped:
        log.warning("%s of %s listed resources aren't valid and are left out.", dropped, len(items))
    return Listing(found, is_complete=not dropped)


def _accepted(answer: ServerResponse) -> Accepted:
    """The reference names the operation in `x-ms-request-id`, servers of its days in `Operation-Location`.

    Only a 202 goes on after the answer: on others `x-ms-request-id` names just the request.
    """
    if answer.status != 202:
        return Accepted()
    located = wire_values.last_segment(answer.headers.get("Operation-Location", ""))
    named = wire_values.text(answer.headers.get("x-ms-request-id"), 1000).strip()
    return Accepted(located or (named if wire_values.is_usable_id(named) else ""), is_pending=True)
