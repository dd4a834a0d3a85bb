"""Client for the MMS: one method per operation of the REST API reference, plus optional server extensions.

All methods raise `errors.MMSError`; the class says whether the request may be sent again. No Django here.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from deployments.client import errors, wire, wire_values
from deployments.client.http import ServerResponse
from deployments.client.transport import MAX_LIST_BYTES, BearerToken, Credential, Transport
from netguard.redaction import MASK, Redactor

log = logging.getLogger(__name__)
Item = TypeVar("Item")
LOG_PART_BYTES = 256 * 1024  # per response
IDEMPOTENCY_EXTENSION = "idempotency"
CHANGE_FEED_EXTENSION = "change-feed"
CURSOR_HEADER = "x-mms-cursor"
NOT_MODIFIED = 304
OPERATION_IDS_EXTENSION = "operation-ids"
MAX_IDS = 200  # per request
MAX_IDS_CHARS = 7000  # proxies reject longer request lines


@dataclass(frozen=True)
class Accepted:
    """Accepted write. `operation_id` is "" if the operation is finished or can't be queried."""

    operation_id: str = ""
    is_pending: bool = False  # 202: the operation continues after the response


@dataclass(frozen=True)
class ListVersion:
    """Identifies the content of a list, so that the next read can skip what hasn't changed. "" if unknown."""

    etag: str = ""  # as the server sent it
    cursor: str = ""  # position in the list's change feed, an extension
    digest: str = ""  # SHA-256 of the response, for servers with neither


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """Resources of a list. Incomplete if some items were malformed; then missing resources may still exist.

    removed: ids of resources that are no longer listed, if `items` are only those that changed; None for a whole list.
    """

    items: list[Item]
    is_complete: bool = True
    version: ListVersion = field(default_factory=ListVersion)
    is_unchanged: bool = False  # since the version that the caller knows; then there are no items
    removed: list[str] | None = None


@dataclass(frozen=True)
class LogText:
    """Part of a log."""

    body: bytes  # UTF-8, may end within a line or a character
    position: int  # byte offset to continue from
    redactor: Redactor = field(default_factory=Redactor)  # to apply before the text is stored


class MMSClient:
    """Client for one hosting account. Close it after use; not thread-safe.

    token: a bearer token or a source of tokens. options: `read_timeout`, `deadline` and `known_secrets`, as for
        Transport.
    """

    def __init__(
        self,
        base_url: str,
        subscription: str,
        resource_group: str,
        hosting_account: str,
        *,
        token: str | Credential,
        api_version: str,
        **options: Any,
    ):
        group = f"subscriptions/{_segment(subscription)}/resourceGroups/{_segment(resource_group)}"
        self.base = f"{base_url.rstrip('/')}/api/{group}/hostingAccounts/{_segment(hosting_account)}"
        self.api_version = api_version
        self.transport = Transport(BearerToken(token) if isinstance(token, str) else token, **options)

    def __enter__(self) -> "MMSClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    @property
    def idempotent(self) -> bool:
        """Return True if the server declares that repeated requests with one client request id take effect once."""
        return IDEMPOTENCY_EXTENSION in self.transport.extensions

    @property
    def has_operation_ids(self) -> bool:
        """Return True if the server's last response declared that it can return several operations at a time."""
        return OPERATION_IDS_EXTENSION in self.transport.extensions

    @property
    def called_at(self) -> datetime:
        """Return when the last call began."""
        return self.transport.called_at

    @property
    def clock_ahead(self) -> timedelta | None:
        """Return how far the server's clock was ahead in its last response; None if unknown."""
        return self.transport.clock_ahead

    def prepare(self) -> None:
        """Read from the database what calls need. Raises the database's errors, before anything is sent."""
        self.transport.load_secrets()

    # --- writes ---------------------------------------------------------------------------------------------------

    def register_model(self, request: wire.NewModel, request_id: str) -> wire.Model:
        """Register a model (MMS API reference, "Register Model"). Return the registered version."""
        answer = self._send("POST", "models", request, request_id)
        return _read(answer, wire.Model.from_wire)

    def create_manifest(self, request: wire.NewManifest, request_id: str) -> wire.Manifest:
        """Create a manifest (MMS API reference, "Create manifest"). Return the manifest."""
        answer = self._send("POST", "manifests", request, request_id)
        return _read(answer, wire.Manifest.from_wire)

    def create_image(self, request: wire.NewImage, request_id: str) -> Accepted:
        """Start building an image (MMS API reference, "Create Image"). Return the operation to poll."""
        return _accepted(self._send("POST", "images", request, request_id))

    def create_service(self, request: wire.NewService, request_id: str) -> Accepted:
        """Start creating a service (MMS API reference, "Create Service"). Return the operation to poll."""
        return _accepted(self._send("POST", "services", request, request_id))

    def update_service(self, request: wire.ServiceUpdate, request_id: str) -> Accepted:
        """Start updating a service (MMS API reference, "Update Service"). Return the operation to poll."""
        return _accepted(self._send("PUT", f"services/{_segment(request.service_id)}", request, request_id))

    def delete_service(self, request: wire.ServiceDeletion, request_id: str) -> Accepted:
        """Delete a service (MMS API reference, "Delete Service"). The operation may be finished on return."""
        return _accepted(self._send("DELETE", f"services/{_segment(request.service_id)}", None, request_id))

    # --- reads ----------------------------------------------------------------------------------------------------

    def list_models(self, known: ListVersion | None = None) -> Listing[wire.Model]:
        """Return all models (MMS API reference, "Get Model Information"), or what changed since `known`."""
        return self._list("models", wire.Model.from_wire, known)

    def list_manifests(self, known: ListVersion | None = None) -> Listing[wire.Manifest]:
        """Return all manifests (MMS API reference, "Get Manifest Information"), or what changed since `known`."""
        return self._list("manifests", wire.Manifest.from_wire, known)

    def list_images(self, known: ListVersion | None = None) -> Listing[wire.Image]:
        """Return all images (MMS API reference, "Get Images"), or what changed since `known`."""
        return self._list("images", wire.Image.from_wire, known)

    def list_services(self, known: ListVersion | None = None) -> Listing[wire.Service]:
        """Return all services (MMS API reference, "Get Services"), or what changed since `known`."""
        return self._list("services", wire.Service.from_wire, known)

    def get_model(self, model_id: str) -> wire.Model:
        """Return one model. Raises NotFoundError."""
        return self._get("models", model_id, wire.Model.from_wire)

    def get_manifest(self, manifest_id: str) -> wire.Manifest:
        """Return one manifest. Raises NotFoundError."""
        return self._get("manifests", manifest_id, wire.Manifest.from_wire)

    def get_image(self, image_id: str) -> wire.Image:
        """Return one image. Raises NotFoundError."""
        return self._get("images", image_id, wire.Image.from_wire)

    def get_service(self, service_id: str) -> wire.Service:
        """Return one service. Raises NotFoundError."""
        return self._get("services", service_id, wire.Service.from_wire)

    def get_operation(self, operation_id: str) -> wire.OperationStatus:
        """Return the state of an operation (MMS API reference, "Get Async Operation Status")."""
        return self._get("operations", operation_id, wire.OperationStatus.from_wire)

    def get_operations(self, operation_ids: Sequence[str]) -> dict[str, wire.OperationStatus]:
        """Return the states of the operations that the server knows, by id, in as few calls as possible.

        An extension. An invalid status is left out, as is one of an operation that wasn't requested.
        """
        found: dict[str, wire.OperationStatus] = {}
        for part in _id_lists(operation_ids):
            requested = {operation_id.casefold(): operation_id for operation_id in part}
            answer = self._call("GET", f"operations?ids={','.join(map(_segment, part))}")
            for status in _listing(_read(answer, wire.page)[0], wire.OperationStatus.from_wire).items:
                if operation_id := requested.get(status.id.casefold()):
                    found[operation_id] = status
        return found

    # --- extensions: NotFoundError or NotSupportedError if the server lacks them -------------------------------------

    def get_service_key(self, service_id: str) -> str:
        """Return the service's scoring key, a bearer token for its scoring URL; "" if it is another of our secrets."""
        key: str = _read(self._call("GET", f"services/{_segment(service_id)}/keys", returns_key=True), wire.primary_key)
        return "" if MASK in key else key

    def get_operation_log(self, operation_id: str, after: int) -> LogText:
        """Return the operation's log from byte `after` on, up to LOG_PART_BYTES."""
        return self._log(f"operations/{_segment(operation_id)}/log", after=after)

    def get_service_log(self, service_id: str, revision: int | None, after: int) -> LogText:
        """Return the log of a revision (None: the current one) from byte `after` on, up to LOG_PART_BYTES."""
        parameters = {"revision": revision} if revision else {}
        return self._log(f"services/{_segment(service_id)}/logs", after=after, **parameters)

    def cancel_operation(self, operation_id: str) -> None:
        """Cancel an operation."""
        self._call("DELETE", f"operations/{_segment(operation_id)}")

    # --- internals ----------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, **more: Any) -> ServerResponse:
        params = {"api-version": self.api_version} | more.pop("params", {})
        return self.transport.call(method, f"{self.base}/{path}", params, **more)

    def _send(self, method: str, path: str, request: wire.Request | None, request_id: str) -> ServerResponse:
        body = request.to_wire() if request else None
        secrets = wire.secrets_in(request) if request else ()
        return self._call(method, path, body=body, request_id=request_id, secrets=secrets)

    def _get(self, noun: str, resource_id: str, from_wire: Callable[[Any], Item]) -> Item:
        """Return one resource; the reference shows it as an array of one in places.

        Raises InvalidResponseError if the response is about another one.
        """
        answer = self._call("GET", f"{noun}/{_segment(resource_id)}")
        found = _read(answer, lambda data: from_wire(data[0] if isinstance(data, list) and len(data) == 1 else data))
        named: str = getattr(found, "id", "")
        if named and resource_id.casefold() not in {named.casefold(), wire_values.last_segment(named).casefold()}:
            raise errors.InvalidResponseError(
                f"The server's response isn't valid: it is about “{named}”, not about “{resource_id}”."
            )
        return found

    def _list(self, noun: str, from_wire: Callable[[Any], Item], known: ListVersion | None = None) -> Listing[Item]:
        """Return all pages of a list, which together are limited to the time and MAX_LIST_BYTES of one call.

        Skips what hasn't changed since `known`, using the best method that the server supports: its change feed, an
        entity tag, or comparing the bytes of the response.
        """
        known = known or ListVersion()
        if known.cursor and (changes := self._changes(noun, from_wire, known.cursor)):
            return changes
        until, remaining_bytes = time.monotonic() + self.transport.deadline, MAX_LIST_BYTES
        answer = self._call("GET", noun, max_bytes=remaining_bytes, until=until, etag=known.etag)
        if answer.status == NOT_MODIFIED:
            return Listing([], version=known, is_unchanged=True)
        version = self._version(answer)
        if version.digest == known.digest:
            return Listing([], version=version, is_unchanged=True)
        items: list[Any] = []
        pages: set[str] = set()
        while True:
            part, next_page = _read(answer, wire.page)
            items += part
            if not next_page:
                listing = _listing(items, from_wire)
                return replace(listing, version=version if listing.is_complete and not pages else ListVersion())
            if next_page in pages:
                raise errors.InvalidResponseError(f"The list of {noun} returned to an earlier page.")
            pages.add(next_page)
            remaining_bytes -= len(answer.body)
            answer = self._next(noun, self._same_server_url(next_page), remaining_bytes, until)

    def _version(self, answer: ServerResponse) -> ListVersion:
        has_feed = CHANGE_FEED_EXTENSION in self.transport.extensions
        return ListVersion(
            etag=_header(answer, "ETag"),
            cursor=_header(answer, CURSOR_HEADER) if has_feed else "",
            digest=sha256(answer.body).hexdigest(),
        )

    def _changes(self, noun: str, from_wire: Callable[[Any], Item], cursor: str) -> Listing[Item] | None:
        """Return what changed since the cursor. None if the server no longer knows it, or an item is malformed."""
        until, remaining_bytes = time.monotonic() + self.transport.deadline, MAX_LIST_BYTES
        found: dict[str, Item | None] = {}  # None: removed
        passed = {cursor}
        while True:
            try:
                parameters = {"changedSince": cursor}
                answer = self._call("GET", noun, params=parameters, max_bytes=remaining_bytes, until=until)
            except errors.TokenRefusedError:
                raise
            except errors.RejectedError:
                return None
            page = _read(answer, wire.Changes.from_wire)
            try:
                listing = _listing(page.changed, from_wire)
            except errors.InvalidResponseError:
                return None
            if page.is_whole_list or not listing.is_complete:
                return None
            found |= dict.fromkeys(page.removed)
            found |= {item.id: item for item in listing.items}  # type: ignore[attr-defined]
            cursor = page.cursor
            if not page.has_more:
                break
            if cursor in passed:
                raise errors.InvalidResponseError(f"The changes of the list of {noun} returned to an earlier cursor.")
            passed.add(cursor)
            remaining_bytes -= len(answer.body)
        return Listing(
            [item for item in found.values() if item is not None],
            version=ListVersion(cursor=cursor),
            is_unchanged=not found,
            removed=[resource_id for resource_id, item in found.items() if item is None],
        )

    def _next(self, noun: str, url: str, remaining_bytes: int, until: float) -> ServerResponse:
        """Return a further page. Errors of size and time name the whole list."""
        try:
            return self.transport.call("GET", url, {}, max_bytes=remaining_bytes, until=until)
        except errors.ResponseTooLargeError as error:
            raise errors.ResponseTooLargeError(
                f"The list of {noun} is larger than {MAX_LIST_BYTES // 1024**2} MB."
            ) from error
        except (errors.NoResponseError, errors.UnreachableError) as error:
            if time.monotonic() < until:
                raise
            late = f"The list of {noun} was not complete after {self.transport.deadline:.0f} s."
            raise errors.NoResponseError(late) from error

    def _same_server_url(self, url: str) -> str:
        """Return the URL of a next page if it is on the same server: the token is sent to no other."""
        try:
            absolute, base = urlsplit(urljoin(self.base, url)), urlsplit(self.base)
        except ValueError:
            raise errors.InvalidResponseError("The next page of the list has an invalid address.") from None
        if (absolute.scheme, absolute.netloc) != (base.scheme, base.netloc):
            raise errors.InvalidResponseError(
                "The next page of the list is on another server, where the token must not be sent."
            )
        return absolute.geturl()

    def _log(self, path: str, after: int, **parameters: Any) -> LogText:
        answer = self._call(
            "GET", path, params={"after": after, "limit": LOG_PART_BYTES, **parameters}, max_bytes=MAX_LIST_BYTES
        )
        position = wire_values.whole_number(answer.headers.get("X-Log-Position"))
        position = after + len(answer.body) if position is None else position
        return LogText(answer.body, position, answer.redactor)


def _id_lists(operation_ids: Sequence[str]) -> Iterator[list[str]]:
    """Yield the ids in parts of at most MAX_IDS and MAX_IDS_CHARS."""
    part: list[str] = []
    chars = 0
    for operation_id in operation_ids:
        length = len(_segment(operation_id)) + 1
        if part and (len(part) == MAX_IDS or chars + length > MAX_IDS_CHARS):
            yield part
            part, chars = [], 0
        part.append(operation_id)
        chars += length
    if part:
        yield part


def _header(answer: ServerResponse, name: str) -> str:
    """Return a header that is sent back with the next request; "" if it is unusable or echoes a secret."""
    value = wire_values.text(answer.headers.get(name))
    is_usable = re.fullmatch(r"[\x21-\x7e]{1,300}", value) and answer.redactor.text(value) == value
    return value if is_usable else ""


def _segment(value: str) -> str:
    return quote(value, safe="")


def _read(answer: ServerResponse, from_wire: Callable[[Any], Item]) -> Item:
    """Parse a response. Raises InvalidResponseError."""
    try:
        return from_wire(answer.json())
    except wire_values.MalformedPayloadError as error:
        raise errors.InvalidResponseError(f"The server's response isn't valid: {error}") from error
    except RecursionError:
        raise errors.InvalidResponseError("The server's response isn't valid: it is nested too deeply.") from None


def _listing(items: list[Any], from_wire: Callable[[Any], Item]) -> Listing[Item]:
    """Parse the items of a list, skipping malformed ones. Raises InvalidResponseError if all are malformed."""
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
    """Return the accepted operation.

    The reference returns its id in `x-ms-request-id`, newer servers in `Operation-Location`. The operation continues
    only after a 202; with any other status, `x-ms-request-id` just identifies the request.
    """
    if answer.status != 202:
        return Accepted()
    redact = answer.redactor.for_ids.text
    located = wire_values.last_segment(redact(answer.headers.get("Operation-Location", "")))
    named = redact(wire_values.text(answer.headers.get("x-ms-request-id"), 1000)).strip()
    return Accepted(located or (named if wire_values.is_usable_id(named) else ""), is_pending=True)
