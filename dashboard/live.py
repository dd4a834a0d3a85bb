"""The live stream: one server-sent events (SSE) connection per visible tab, and one reader of Redis per web process.

`GET /stream?position=<id>` sends the events after that position in the Redis stream `live`, then an event `live`, then
new events as they happen. The header Last-Event-ID takes precedence over `position`. An event `badge` has the badge as
the page renders it; `refresh` has the keys of other changed things. After a gap that can't be filled, `resync` makes
the page reload its rows. This is plain ASGI: a connection needs two queues and no database connection. Access is
checked again every RECHECK_SECONDS.
"""

import asyncio
import json
import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import FrameType
from typing import Any

import redis.asyncio
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from django.conf import settings
from django.db import Error
from redis.exceptions import RedisError

from dashboard.access import guards
from dashboard.auth import request_user
from dashboard.catalog.badges import render_badge
from dashboard.http import asgi, hosts
from deployments.live import events

Position = tuple[int, int]

HEARTBEAT_SECONDS = 10.0
HEARTBEAT_TURNS = 10  # parts of the connections that get their heartbeats one after another
READER_SECONDS = 3.0  # how long the result of a check of a session is used for further streams of it
RECHECK_SECONDS = 30.0
MAX_QUEUED_EVENTS = 500  # queued for a slow client
MAX_REPLAYED_EVENTS = 1000  # a client that missed more events reloads its rows
MAX_CONNECTIONS_PER_USER = 20  # in one web process
BLOCK_SECONDS = 5  # timeout of one request to Redis
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """An encoded event for the clients that can see its account (0: for every client)."""

    position: Position
    account_id: int
    text: bytes


@dataclass(frozen=True)
class Heartbeat:
    """An event that shows that the connection works. Not a comment, because pages don't see comments."""

    text: bytes
    account_id: int = 0


class Connection:
    """One open stream: its user, the accounts they can see, and the queued events."""

    def __init__(self, user_id: int, accounts: set[int]) -> None:
        self.user_id, self.accounts = user_id, accounts
        self.turn = 0  # of its heartbeats
        self.lost = asyncio.Event()  # set to close the stream: the browser reconnects and gets the missed events
        self._queue: asyncio.Queue[Event | Heartbeat] = asyncio.Queue(MAX_QUEUED_EVENTS)

    def offer(self, event: Event | Heartbeat) -> None:
        """Queue the event if the user can see it. Close the stream if the client doesn't keep up."""
        if event.account_id and event.account_id not in self.accounts:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost.set()

    async def next(self) -> list[Event | Heartbeat]:
        """Wait for an event. Return all that are queued."""
        queued = [await self._queue.get()]
        while not self._queue.empty():
            queued.append(self._queue.get_nowait())
        return queued


class RecentEvents:
    """The events that this process read last. Most pages connect to it within seconds and miss none or few."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._start = self._newest = (0, 0)
        self.read_at = 0.0  # time.monotonic() of the last response of Redis

    def restart(self, position: Position) -> None:
        """Forget all events. The next one follows `position`."""
        self._events.clear()
        self._start = self._newest = position
        self.read_at = time.monotonic()

    def add(self, event: Event) -> None:
        """Add the newest event."""
        self._events.append(event)
        self._newest = event.position
        if len(self._events) > MAX_REPLAYED_EVENTS:
            self._start = self._events.popleft().position

    def since(self, after: str) -> tuple[list[Event], Position] | None:
        """Return the events after position `after`, and the position of the last one. None if Redis has to be read."""
        try:
            position = _position(after)
        except ValueError:
            return None
        if not self._start <= position <= self._newest or time.monotonic() - self.read_at > BLOCK_SECONDS + 1:
            return None
        return [event for event in self._events if event.position > position], self._newest


class Hub:
    """The reader of Redis in this process, which runs while there are connections."""

    def __init__(self) -> None:
        # Protocol 2 returns lists. The default depends on the version of the client.
        self._redis: Any = redis.asyncio.from_url(
            settings.REDIS_URL, protocol=2, socket_timeout=BLOCK_SECONDS + 5, socket_connect_timeout=3
        )
        self._connections: set[Connection] = set()
        self._per_user: Counter[int] = Counter()
        self._reader: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._recent = RecentEvents()
        self.closed = False
        _call_on_shutdown(self.close)

    def close(self) -> None:
        """Close all streams. The server would wait for them when it stops."""
        self.closed = True
        for connection in self._connections:
            connection.lost.set()

    async def join(self, connection: Connection, after: str) -> tuple[list[Event], Position]:
        """Add the connection. Return the events since position `after`, and the position of the last one.

        The queued events may repeat some of them. Raises RedisError.
        """
        if self._reader is None:
            newest = await self._newest()
            if self._reader is None:
                self._recent.restart(newest)
                self._reader = asyncio.create_task(self._read(newest))
        self._heart = self._heart or asyncio.create_task(self._beat())
        self._connections.add(connection)
        self._per_user[connection.user_id] += 1
        connection.turn = len(self._connections) % HEARTBEAT_TURNS
        try:
            return self._recent.since(after) or await self._missed(after)
        except BaseException:
            self.leave(connection)
            raise

    def leave(self, connection: Connection) -> None:
        """Remove the connection. Stop reading after the last one."""
        self._connections.discard(connection)
        self._per_user[connection.user_id] -= 1
        if not self._per_user[connection.user_id]:
            del self._per_user[connection.user_id]
        if not self._connections:
            for task in filter(None, (self._reader, self._heart)):
                task.cancel()
            self._reader = self._heart = None

    def count(self, user_id: int) -> int:
        """Return the number of connections of the user."""
        return self._per_user[user_id]

    def named(self, name: str) -> bytes:
        """Return an event with the number of connections, so that pages can spread their requests."""
        return f'event: {name}\ndata: {{"listeners": {len(self._connections)}}}\n\n'.encode()

    async def _beat(self) -> None:
        """Send heartbeats, to a part of the connections at a time, so that thousands don't delay an event."""
        turn = 0
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS / HEARTBEAT_TURNS)
            turn = (turn + 1) % HEARTBEAT_TURNS
            heartbeat = Heartbeat(self.named("alive"))
            for connection in self._connections:
                if connection.turn == turn:
                    connection.offer(heartbeat)

    async def _read(self, position: Position) -> None:
        """Announce the events after `position` as long as this task is the reader.

        Checked explicitly, because the Redis client can lose a cancellation that coincides with a response.
        """
        this_task = asyncio.current_task()
        try:
            while self._reader is this_task:
                response = await self._redis.xread(
                    {events.STREAM: _text(position)}, count=100, block=BLOCK_SECONDS * 1000
                )
                newest = await self._newest() if not response else position
                if self._reader is not this_task:
                    return
                for name, fields in response[0][1] if response else ():
                    position = _position(name.decode())
                    self._announce(_event(position, fields))
                if newest < position and not response:  # Redis was flushed: ids may restart
                    position = newest
                    self._recent.restart(position)
                    self._announce(_resync(position))
                self._recent.read_at = time.monotonic()
        except (RedisError, OSError) as reason:
            log.warning("The live stream lost its connection to Redis: %s", reason)
        except Exception:
            log.exception("The live stream failed")
        if self._reader is this_task:
            self._reader = None
            for connection in self._connections:
                connection.lost.set()

    def _announce(self, event: Event) -> None:
        self._recent.add(event)
        for connection in self._connections:
            connection.offer(event)

    async def _newest(self) -> Position:
        """Return the position of the newest event.

        Raises RedisError, also if Redis rejects writes because its disk is full: no event would ever arrive.
        """
        await self._redis.ping()
        entries = await self._redis.xrevrange(events.STREAM, count=1)
        return _position(entries[0][0].decode()) if entries else (0, 0)

    async def _missed(self, after: str) -> tuple[list[Event], Position]:
        """Return the events after that position, or one `resync` if they aren't available, and the newest position."""
        newest = await self._newest()
        entries = await self._entries(after, newest)
        if entries is None:
            return [_resync(newest)], newest
        missed = [_event(_position(name.decode()), fields) for name, fields in entries]
        return missed, missed[-1].position if missed else newest

    async def _entries(self, after: str, newest: Position) -> list[Any] | None:
        """Return the entries after that position, or None if some were deleted or there are too many."""
        try:
            position = _position(after)
        except ValueError:
            return None
        if position >= newest:
            return [] if position == newest else None
        (oldest, _), *_ = await self._redis.xrange(events.STREAM, count=1) or [(b"0-0", {})]
        from_the_start = position == (0, 0) and await self._redis.xlen(events.STREAM) < MAX_REPLAYED_EVENTS
        if not from_the_start and _position(oldest.decode()) > position:
            return None
        entries: list[Any] = await self._redis.xrange(
            events.STREAM, f"({_text(position)}", count=MAX_REPLAYED_EVENTS + 1
        )
        return entries if len(entries) <= MAX_REPLAYED_EVENTS else None


def _call_on_shutdown(callback: Callable[[], None]) -> None:
    """Call `callback` on the event loop when this process gets a stop signal. Uvicorn doesn't end open responses."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def extend_handler(number: signal.Signals) -> None:
        previous = signal.getsignal(number)

        def stop(received: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(callback)
            if callable(previous):
                previous(received, frame)

        if callable(previous):
            signal.signal(number, stop)

    extend_handler(signal.SIGTERM)
    extend_handler(signal.SIGINT)


def _position(text: str) -> Position:
    """Parse a Redis stream id into comparable numbers. Raises ValueError, also for the "0" of pages without Redis."""
    time, _, number = text.partition("-")
    return int(time), int(number)


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _event(position: Position, fields: dict[bytes, bytes]) -> Event:
    try:
        change = events.decode(fields)
    except (KeyError, ValueError):  # written by another release
        return _resync(position)
    if change.badge is None and not change.account_id:
        return _resync(position)
    if change.badge is None:
        return Event(position, change.account_id, _encode(position, "refresh", json.dumps(change.refresh)))
    html = render_badge(change.badge)
    data = json.dumps({"key": change.badge.key, "html": html, "refresh": change.refresh})
    return Event(position, change.account_id, _encode(position, "badge", data))


def _resync(position: Position) -> Event:
    return Event(position, 0, _encode(position, "resync", "{}"))


def _encode(position: Position, name: str, data: str) -> bytes:
    return f"id: {_text(position)}\nevent: {name}\ndata: {data}\n\n".encode()


class Readers:
    """Users of streams, found once for streams that open at the same time, as all tabs do after a restart."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[float, asyncio.Future[tuple[int, set[int]] | None]]] = {}

    async def find(self, scope: HTTPScope, max_age: float = READER_SECONDS) -> tuple[int, set[int]] | None:
        """Return the user's id and the accounts they can see, as of at most `max_age` seconds ago. Raises Error."""
        key = sha256(asgi.header(scope, b"cookie").encode()).digest()
        now = time.monotonic()
        if key not in self._found or now - self._found[key][0] > max_age:
            self._found = {key: entry for key, entry in self._found.items() if now - entry[0] <= READER_SECONDS}
            call = request_user.call_with_database(_find_reader, scope)
            self._found[key] = now, asyncio.ensure_future(call)
        try:
            reader = await asyncio.shield(self._found[key][1])
        except Error:
            self._found.pop(key, None)
            raise
        return reader and (reader[0], set(reader[1]))


def _find_reader(scope: HTTPScope) -> tuple[int, set[int]] | None:
    """Return the user's id and the accounts they can see, or None if they are signed out. Queries the database."""
    user = request_user.find_user(scope)
    if not user.is_authenticated or not user.is_active:
        return None
    return user.pk, {account.pk for account in guards.visible_accounts(user)}


class Stream:
    """ASGI application for /stream."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._readers = Readers()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            return None
        if scope["method"] != "GET" or not hosts.is_known_host(scope):
            return await _refuse(send, 400, "Only pages of this site can read the live stream.")
        try:
            reader = await self._readers.find(scope)
        except Error as error:
            log.warning("Couldn't check the user of a live stream: %s", error)
            return await _refuse(send, 503, "The database is unreachable. The page polls instead.")
        if reader is None:
            return await _refuse(send, 401, "You’re signed out.")
        if self._hub is None:
            self._hub = Hub()
        connection = Connection(*reader)
        if self._hub.closed:
            return await _refuse(send, 503, "The site is restarting.")
        if self._hub.count(connection.user_id) >= MAX_CONNECTIONS_PER_USER:
            return await _refuse(send, 429, "You have too many pages open. This one polls instead.")
        after = asgi.header(scope, b"last-event-id") or asgi.query_parameters(scope).get("position", "")
        try:
            missed, position = await self._hub.join(connection, after)
        except (RedisError, OSError):
            return await _refuse(send, 503, "Redis is unreachable. The page polls instead.")
        try:
            await _run_until_first_ends(
                _write(connection, missed, position, self._hub.named("live"), send),
                _wait_for_disconnect(receive),
                self._recheck_access(connection, scope),
                connection.lost.wait(),
            )
        finally:
            self._hub.leave(connection)
        with suppress(TimeoutError):  # a client that doesn't read blocks this send
            async with asyncio.timeout(1):
                await asgi.end_response(send)
        return None

    async def _recheck_access(self, connection: Connection, scope: HTTPScope) -> None:
        """Keep the user's accounts up to date. Ends when they are signed out or the check fails."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            reader = await self._readers.find(scope, max_age=0)
            if reader is None or reader[0] != connection.user_id:
                return
            connection.accounts = reader[1]


application = Stream()


async def _run_until_first_ends(*parts: Awaitable[Any]) -> None:
    """Run all parts until one of them ends, then cancel the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(
    connection: Connection, missed: list[Event], position: Position, live: bytes, send: ASGISendCallable
) -> None:
    """Send the missed events, the event `live`, then those after `position`."""
    await asgi.start_response(send, 200, HEADERS)
    parts = [b"retry: 2000\n\n"]
    parts += [event.text for event in missed if not event.account_id or event.account_id in connection.accounts]
    parts.append(live)
    await asgi.send_chunk(send, b"".join(parts))
    while True:
        texts = []
        for event in await connection.next():
            if isinstance(event, Heartbeat):
                texts.append(event.text)
            elif event.position > position or not event.account_id:
                position = min(position, event.position)  # ids restart after Redis was flushed
                texts.append(event.text)
        if texts:
            await asgi.send_chunk(send, b"".join(texts))


async def _wait_for_disconnect(receive: ASGIReceiveCallable) -> None:
    """Return when the browser has disconnected or the server is shutting down."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: ASGISendCallable, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await asgi.send_response(send, status, headers, body)
