"""Test double of an MMS server: in memory, programmable, implemented only from the API reference.

Asynchronous operations end when the test calls `end`, or immediately with `auto`. Faults are planned per request:
`mms.plan("POST", "/models", lose_answer)`. `mms.requests` lists the received requests, `mms.effects` their effects.
"""

import json
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = Any


@dataclass
class Reply:
    status: int = 200
    body: Json = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass
class Request:
    method: str
    path: str  # relative to the hosting account
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Json
    at: float


# A fault gets the connection, and a function that performs the effect and returns the correct reply.
Fault = Callable[["Connection", Callable[[], Reply]], None]


class Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each response is delayed by 40 ms
    server: "Server"

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.mms.answer(self, self.rfile.read(length))

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def reply(self, reply: Reply) -> None:
        body = reply.raw if reply.raw is not None else b"" if reply.body is None else json.dumps(reply.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | reply.headers
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100
    mms: "MMS"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of clients that disconnected, which tests do on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class MMS:
    """MMS server at `mms.url`: `with MMS() as mms:`."""

    token = "token-of-the-double"
    account = "/api/subscriptions/s/resourceGroups/g/hostingAccounts/a/"

    def __init__(
        self, *, auto: bool = False, extensions: bool = False, dialect: "Dialect | None" = None, slow: float = 0.0
    ) -> None:
        """Prepare the server. `slow` is the delay in seconds between the effect of a write and its response."""
        self.auto, self.extensions, self.dialect, self.slow = auto, extensions, dialect or Dialect(), slow
        self.models: dict[str, Json] = {}
        self.manifests: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self.services: dict[str, Json] = {}
        self.operations: dict[str, Json] = {}
        self.logs: dict[str, bytes] = {}
        self.old_writes: set[str] = set()  # methods that are served by an older release, without extensions
        self.requests: list[Request] = []
        self.effects: Counter[str] = Counter()
        self._replies: dict[str, Reply] = {}  # by client request id
        self._plans: list[tuple[str, str, Fault]] = []
        self._answering = 0
        self._lock = threading.RLock()

    def __enter__(self) -> "MMS":
        self._server = Server(("127.0.0.1", 0), Connection)
        self._server.mms = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # --- for tests ------------------------------------------------------------------------------------------------

    @property
    def repeated(self) -> list[str]:
        """Return the effects that happened more than once, for tests that request each of them once."""
        return [effect for effect, times in self.effects.items() if times > 1]

    @property
    def idle(self) -> bool:
        """Return True if no request is being processed, not even for a disconnected client."""
        return not self._answering

    def plan(self, method: str, part: str, fault: Fault, times: int = 1) -> None:
        """Plan the fault for the next `times` requests with this method and `part` in their path."""
        self._plans += [(method, part, fault)] * times

    def heal(self) -> None:
        """Cancel all planned faults that haven't happened."""
        with self._lock:
            self._plans.clear()

    def calls(self, method: str, part: str = "") -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]

    def add_model(self, name: str, version: int = 1, **more: Json) -> Json:
        """Add a model as another client would register it."""
        model = {"name": name, "url": f"http://elsewhere/{name}", "tags": [], "description": "", "mimeType": ""}
        return self._add(self.models, model | {"version": version, "createdAt": _now()} | more)

    def add_service(self, name: str, image_id: str = "", **more: Json) -> Json:
        service = {"name": name, "imageId": image_id, "createdAt": _now(), "updatedAt": _now(), "state": "Succeeded"}
        return self._add(self.services, service | more)

    def run(self) -> None:
        """Start every operation that hasn't started."""
        for operation in self.operations.values():
            if operation["state"] == "NotStarted":
                operation["state"] = "Running"

    def end(self, state: str = "Succeeded", error: Json = None) -> None:
        """End every open operation with this state and error."""
        for operation in self.operations.values():
            if operation["state"] in ("NotStarted", "Running"):
                if state == "Succeeded":
                    operation["done"]()
                operation |= {"state": state, "error": error, "endTime": _now()}

    # --- serving --------------------------------------------------------------------------------------------------

    def answer(self, connection: Connection, raw: bytes) -> None:
        parts = urlsplit(connection.path)
        path = parts.path.removeprefix(self.account).rstrip("/")
        headers = {name.lower(): value for name, value in connection.headers.items()}
        query = parse_qs(parts.query)
        request = Request(connection.command, f"/{path}", query, headers, json.loads(raw) if raw else None, time.time())
        with self._lock:
            self.requests.append(request)
            self._answering += 1
            fault = self._fault(request)
        try:
            if fault:
                fault(connection, lambda: self._handle(request))
            else:
                reply = self._handle(request)
                time.sleep(0 if request.method == "GET" else self.slow)
                connection.reply(reply)
        finally:
            with self._lock:
                self._answering -= 1

    def _fault(self, request: Request) -> Fault | None:
        for plan in self._plans:
            if plan[0] == request.method and plan[1] in request.path:
                self._plans.remove(plan)
                return plan[2]
        return None

    def _handle(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, {"error": {"code": "Unauthorized", "message": "no"}})
        with self._lock:
            reply = self._once(request)
        reply.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
        if self._deduplicates(request) or (self.extensions and request.method == "GET"):
            reply.headers["x-mms-extensions"] = "idempotency, operation-ids"
        reply.body = self.dialect.spell(reply.body)
        return reply

    def _once(self, request: Request) -> Reply:
        """Process a request once per client request id, and repeat its reply (an extension of the API)."""
        key = request.headers.get("x-ms-client-request-id", "") if self._deduplicates(request) else ""
        if key in self._replies:
            return self._replies[key]
        noun, _, rest = request.path.strip("/").partition("/")
        verb = getattr(self, f"_{request.method.lower()}_{noun}", None)
        reply = verb(request, *rest.split("/")) if verb and rest else verb(request) if verb else Reply(404, _error(404))
        if key and request.method != "GET":
            self._replies[key] = reply
        return reply

    def _deduplicates(self, request: Request) -> bool:
        return self.extensions and request.method not in self.old_writes

    def _get(self, of: dict[str, Json], request: Request, which: str) -> Reply:
        if not which:
            return self.dialect.listing(self, [_shown(item) for item in of.values()], request)
        return Reply(200, _shown(of[which])) if which in of else Reply(404, _error(404))

    def _get_models(self, request: Request, which: str = "") -> Reply:
        return self._get(self.models, request, which)

    def _get_manifests(self, request: Request, which: str = "") -> Reply:
        return self._get(self.manifests, request, which)

    def _get_images(self, request: Request, which: str = "") -> Reply:
        return self._get(self.images, request, which)

    def _get_services(self, request: Request, which: str = "", part: str = "") -> Reply:
        if not part:
            return self._get(self.services, request, which)
        if not self.extensions:
            return Reply(404, _error(404))
        if part == "keys":
            return Reply(200, {"primaryKey": f"key-of-{which}", "secondaryKey": "other"})
        return self._log(which, request)

    def _get_operations(self, request: Request, which: str = "", part: str = "") -> Reply:
        if part:
            return self._log(which, request) if self.extensions else Reply(404, _error(404))
        if not which:
            return self._get_several(request) if self.extensions else Reply(404, _error(404))
        return self._get(self.operations, request, which)

    def _get_several(self, request: Request) -> Reply:
        ids = request.query["ids"][0].split(",")
        if len(ids) > 200:
            return Reply(400, _error(400))
        return Reply(200, [_shown(self.operations[which]) for which in ids if which in self.operations])

    def _log(self, which: str, request: Request) -> Reply:
        after = int(request.query["after"][0])
        text = self.logs.get(which, b"line 1\n")
        headers = {"X-Log-Position": str(len(text)), "Content-Type": "text/plain"}
        return Reply(200, raw=text[after:], headers=headers)

    def _post_models(self, request: Request) -> Reply:
        self.effects["models"] += 1
        version = 1 + sum(model["name"] == request.body["name"] for model in self.models.values())
        return Reply(201, self._add(self.models, request.body | {"version": version, "createdAt": _now()}))

    def _post_manifests(self, request: Request) -> Reply:
        self.effects["manifests"] += 1
        return Reply(200, self._add(self.manifests, request.body | {"createdTime": _now()}))

    def _post_images(self, request: Request) -> Reply:
        self.effects["images"] += 1
        image = {"imageType": "Docker", "registryInfo": request.body["registryInfo"]}
        if self.dialect.images_name_manifest:
            image |= {"manifestId": request.body["manifestId"], "description": request.body["description"]}
        image_id = str(uuid.uuid4())
        return self._accept("Image", f"images/{image_id}", lambda: self._add(self.images, image, image_id))

    def _post_services(self, request: Request) -> Reply:
        self.effects["services"] += 1
        named = {name: request.body[name] for name in ("name", "imageId")}
        service = self._add(self.services, named | {"createdAt": _now(), "updatedAt": _now(), "state": "NotStarted"})
        if self.extensions:
            service["scoringUri"] = f"{self.url}/scoring/{service['id']}/score"
            service["health"] = "healthy"
        return self._accept("Service", f"services/{service['id']}", lambda: service.update(state="Succeeded"))

    def _put_services(self, request: Request, which: str) -> Reply:
        self.effects["updates"] += 1
        service = self.services[which]
        change = {"imageId": request.body["imageId"], "updatedAt": _now()}
        return self._accept("Service", f"services/{which}", lambda: service.update(change))

    def _delete_services(self, request: Request, which: str) -> Reply:
        if self.services.pop(which, None) is None:
            return Reply(404, _error(404))
        self.effects["deletions"] += 1
        return Reply(200)

    def _delete_operations(self, request: Request, which: str) -> Reply:
        if not self.extensions:
            return Reply(405, _error(405))
        self.operations[which]["state"] = self.dialect.canceled
        return Reply(202)

    def _accept(self, kind: str, location: str, done: Callable[[], Json]) -> Reply:
        operation_id = str(uuid.uuid4())
        operation: Json = {"operationType": kind, "createdTime": _now(), "endTime": None, "state": "NotStarted"}
        operation |= {"resourceLocation": f"{self.url}{self.account}{location}", "error": None, "done": done}
        self._add(self.operations, operation, operation_id)
        if self.auto:
            self.end()
        return Reply(202, headers=self.dialect.names_operation(operation_id))

    def _add(self, to: dict[str, Json], item: Json, item_id: str = "") -> Json:
        found = {"id": item_id or str(uuid.uuid4())} | item
        to[found["id"]] = found
        return found


class Dialect:
    """Spelling of the API reference."""

    canceled = "Canceled"
    images_name_manifest = True

    def spell(self, body: Json) -> Json:
        return body

    def listing(self, mms: MMS, items: list[Json], request: Request) -> Reply:
        return Reply(200, items)

    def names_operation(self, operation_id: str) -> dict[str, str]:
        return {"x-ms-request-id": operation_id}


class PlainDialect(Dialect):
    """Strict API reference, in which an image doesn't contain its manifest."""

    images_name_manifest = False


class OldDialect(Dialect):
    """Server of 2017: capital letters, paginated lists, the other spelling of canceled, and Operation-Location."""

    canceled = "Cancelled"
    page = 2

    def spell(self, body: Json) -> Json:
        if isinstance(body, dict):
            keep = {"value", "nextLink"}
            return {key if key in keep else key[:1].upper() + key[1:]: self.spell(item) for key, item in body.items()}
        return [self.spell(item) for item in body] if isinstance(body, list) else body

    def listing(self, mms: MMS, items: list[Json], request: Request) -> Reply:
        at = int(request.query.get("at", ["0"])[0])
        path = f"{mms.url}{mms.account}{request.path.strip('/')}"
        more = {"nextLink": f"{path}?api-version=1&at={at + self.page}"} if at + self.page < len(items) else {}
        return Reply(200, {"value": items[at : at + self.page]} | more)

    def names_operation(self, operation_id: str) -> dict[str, str]:
        return {"Operation-Location": f"https://elsewhere/api/operations/{operation_id}"}


# --- faults -------------------------------------------------------------------------------------------------------


def lose_answer(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Perform the effect, and close the connection without a response."""
    effect()
    connection.hang_up()


def drop(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Close the connection without an effect."""
    connection.hang_up()


def truncate(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Perform the effect, and send half of the correct response."""
    reply = effect()
    body = json.dumps(reply.body).encode()
    headers = reply.headers | {"Content-Length": str(len(body))}
    connection.reply(Reply(reply.status, raw=body[: len(body) // 2], headers=headers))
    connection.hang_up()


def cut_headers(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Perform the effect, and cut the correct response within its headers."""
    reply = effect()
    named = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    connection.wfile.write(f"HTTP/1.1 {reply.status} OK\r\n{named}"[:-20].encode())
    connection.hang_up()


def after_effect(fault: Fault) -> Fault:
    """Perform the effect, then the fault."""

    def both(connection: Connection, effect: Callable[[], Reply]) -> None:
        effect()
        fault(connection, effect)

    return both


def answer(change: Callable[[Reply], Reply]) -> Fault:
    """Perform the effect, and send the correct response with a change."""
    return lambda connection, effect: connection.reply(change(effect()))


def status(code: int, body: Json = None, **headers: str) -> Fault:
    """Send this status without an effect."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda connection, effect: connection.reply(Reply(code, body, named))


def html(code: int) -> Fault:
    """Send the HTML page of a proxy without an effect."""
    return lambda connection, effect: connection.reply(
        Reply(code, raw=b"<html>Bad Gateway</html>", headers={"Content-Type": "text/html"})
    )


def preceded_by(*statuses: int) -> Fault:
    """Send informational responses with these statuses before the correct response."""

    def fault(connection: Connection, effect: Callable[[], Reply]) -> None:
        for code in statuses:
            connection.wfile.write(
                f"HTTP/1.1 {code} Hint\r\nLink: </x>; rel=preload\r\nX-Hint: {code}\r\n\r\n".encode()
            )
        connection.reply(effect())

    return fault


def garbage(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Perform the effect, and send an invalid response."""
    effect()
    connection.reply(Reply(200, raw=b'{"id": ['))


def anonymous(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Accept the request, but omit the operation's id."""
    effect()
    connection.reply(Reply(202))


def hang(seconds: float) -> Fault:
    """Delay the effect and the response by this time."""

    def fault(connection: Connection, effect: Callable[[], Reply]) -> None:
        time.sleep(seconds)
        connection.reply(effect())

    return fault


def effect_then_hang(seconds: float) -> Fault:
    """Perform the effect immediately, and delay the response by this time."""

    def fault(connection: Connection, effect: Callable[[], Reply]) -> None:
        reply = effect()
        time.sleep(seconds)
        connection.reply(reply)

    return fault


def hang_until_disconnect(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Send no response until the client disconnects."""
    connection.connection.settimeout(30)
    connection.connection.recv(1)
    connection.close_connection = True


def late(seconds: float) -> Fault:
    """Perform the effect after this time, when the client no longer waits, and disconnect."""

    def fault(connection: Connection, effect: Callable[[], Reply]) -> None:
        time.sleep(seconds)
        effect()
        connection.hang_up()

    return fault


def drip_headers(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Perform the effect, and send ten bytes of headers a second, endlessly."""
    effect()
    connection.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        connection.wfile.write(b"x")
        time.sleep(0.1)


def drip(connection: Connection, effect: Callable[[], Reply]) -> None:
    """Send ten bytes a second."""
    connection.send_response(200)
    connection.send_header("Content-Length", "100000")
    connection.end_headers()
    for _ in range(100):
        connection.wfile.write(b" ")
        time.sleep(0.1)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _shown(item: Json) -> Json:
    return {key: value for key, value in item.items() if key != "done"}


def _error(code: int) -> Json:
    return {"error": {"code": str(code), "message": f"The double says {code}."}}
