"""The live stream: one SSE connection per visible tab, all of a web process fed by one reader of Redis.

`GET /stream?position=<id>` (or Last-Event-ID, which wins) sends what happened after that position in the Redis stream
`live`, then an event `live`, then everything new: events `badge` with the badge as the page renders it, and `refresh`
with the keys of what else has changed. Where the gap cannot be filled the event is `resync`, and the page fetches its
rows anew. Plain ASGI: a connection costs two queues and no database connection; who may see what is asked again every
RECHECK_SECONDS.
"""

import asyncio
import json
import logging
import signal
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any
from urllib.parse import parse_qs

import redis.asyncio
from django.conf import settings
from django.db import Error
from django.template.loader import render_to_string
from redis.exceptions import RedisError

from dashboard.access import guards as access
from dashboard.auth import request_user
from dashboard.auth.request_user import Scope, header
from deployments.live import events as live

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Position = tuple[int, int]

HEARTBEAT_SECONDS = 10.0
RECHECK_SECONDS = 30.0
QUEUE_LENGTH = 500  # events a slow reader may lag behind
REPLAY_LENGTH = 1000  # events; whoever missed more fetches the rows anew
CONNECTIONS_PER_USER = 20  # in one web process
BLOCK_SECONDS = 5  # of one question to Redis
ALIVE = b"event: alive\ndata: {}\n\n"  # an event, for a page sees no comment: silence tells it that it was cut off
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """One event, ready to be sent to whoever may see its account (0: everybody)."""

    position: Position
    account_id: int
    text: bytes


class Connection:
    """One open stream: whose it is, what they may see, and the events on their way."""

    def __init__(self, user_id: int, accounts: set[int]) -> None:
        self.user_id, self.accounts = user_id, accounts
        self.lost = asyncio.Event()  # it cannot go on: the browser connects again and is told what it missed
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LENGTH)

    def offer(self, event: Event) -> None:
        """Queue the event if it concerns this reader; one who does not keep up is lost."""
        if event.account_id and event.account_id not in self.accounts:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost.set()

    async def next(self) -> Event | None:
        """The next event; None when it is time for a heartbeat."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await self._queue.get()
        except TimeoutError:
            return None


class Hub:
    """The one reader of Redis in this process, running while anybody listens."""

    def __init__(self) -> None:
        # protocol 2: answers are lists, whatever the client's default is
        self._redis: Any = redis.asyncio.from_url(
            settings.REDIS_URL, protocol=2, socket_timeout=BLOCK_SECONDS + 5, socket_connect_timeout=3
        )
        self._connections: set[Connection] = set()
        self._reader: asyncio.Task[None] | None = None
        self.closed = False
        _when_stopped(self.close)

    def close(self) -> None:
        """End all streams: the server is about to stop, and would wait for them."""
        self.closed = True
        for connection in self._connections:
            connection.lost.set()

    async def join(self, connection: Connection, after: str) -> tuple[list[Event], Position]:
        """Feed `connection` from now on; returns what happened since position `after`, and up to which position.

        The feed may lag and repeat some of it. Raises RedisError.
        """
        if self._reader is None:
            newest = await self._newest()
            self._reader = self._reader or asyncio.create_task(self._read(newest))
        self._connections.add(connection)
        try:
            return await self._missed(after)
        except BaseException:
            self.leave(connection)
            raise

    def leave(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections and self._reader:
            self._reader.cancel()
            self._reader = None

    def count(self, user_id: int) -> int:
        return Counter(connection.user_id for connection in self._connections)[user_id]

    async def _read(self, position: Position) -> None:
        """Announce what Redis has after `position`, as long as this task is the reader.

        It asks whether it still is: a cancellation that coincides with an answer of Redis can get lost in the client.
        """
        me = asyncio.current_task()
        try:
            while self._reader is me:
                found = await self._redis.xread({live.STREAM: _text(position)}, count=100, block=BLOCK_SECONDS * 1000)
                newest = await self._newest() if not found else position
                if self._reader is not me:
                    return
                for name, fields in found[0][1] if found else ():
                    position = _position(name.decode())
                    self._announce(_event(position, fields))
                if newest < position and not found:  # Redis was emptied: its ids may begin anew
                    position = newest
                    self._announce(_resync(position))
        except (RedisError, OSError) as reason:
            log.warning("lost the connection to Redis in the live stream: %s", reason)
        except Exception:
            log.exception("the live stream has ended")
        if self._reader is me:
            self._reader = None
            for connection in self._connections:
                connection.lost.set()

    def _announce(self, event: Event) -> None:
        for connection in self._connections:
            connection.offer(event)

    async def _newest(self) -> Position:
        """Raises RedisError, too, from a Redis that takes no writes (its disk is full): nothing would ever come."""
        await self._redis.ping()
        entries = await self._redis.xrevrange(live.STREAM, count=1)
        return _position(entries[0][0].decode()) if entries else (0, 0)

    async def _missed(self, after: str) -> tuple[list[Event], Position]:
        """The events after that position, or one `resync` when they cannot be told any more; and the newest one's."""
        newest = await self._newest()
        entries = await self._entries(after, newest)
        if entries is None:
            return [_resync(newest)], newest
        events = [_event(_position(name.decode()), fields) for name, fields in entries]
        return events, events[-1].position if events else newest

    async def _entries(self, after: str, newest: Position) -> list[Any] | None:
        """What Redis has after that position; None when it no longer has all of it, or too much."""
        try:
            position = _position(after)
        except ValueError:
            return None
        if position >= newest:
            return [] if position == newest else None
        (oldest, _), *_ = await self._redis.xrange(live.STREAM, count=1) or [(b"0-0", {})]
        from_the_start = position == (0, 0) and await self._redis.xlen(live.STREAM) < REPLAY_LENGTH
        if not from_the_start and _position(oldest.decode()) > position:
            return None
        entries: list[Any] = await self._redis.xrange(live.STREAM, f"({_text(position)}", count=REPLAY_LENGTH + 1)
        return entries if len(entries) <= REPLAY_LENGTH else None


def _when_stopped(act: Callable[[], None]) -> None:
    """Call `act` on the event loop when this process is told to stop: uvicorn says nothing to open responses."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def follow(number: signal.Signals) -> None:
        before = signal.getsignal(number)

        def stop(received: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(act)
            if callable(before):
                before(received, frame)

        if callable(before):
            signal.signal(number, stop)

    follow(signal.SIGTERM)
    follow(signal.SIGINT)


def _position(text: str) -> Position:
    """A Redis stream id as numbers that can be compared; raises ValueError ("0" is what a page says without Redis)."""
    time, _, number = text.partition("-")
    return int(time), int(number)


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _event(position: Position, fields: dict[bytes, bytes]) -> Event:
    try:
        found = live.decode(fields)
    except (KeyError, ValueError):  # written by another release of this program
        return _resync(position)
    if found.badge is None and not found.account_id:
        return _resync(position)
    if found.badge is None:
        return Event(position, found.account_id, _encode(position, "refresh", json.dumps(found.refresh)))
    html = render_to_string("_shared/_badge.html", {"badge": found.badge})
    data = json.dumps({"key": found.badge.key, "html": html, "refresh": found.refresh})
    return Event(position, found.account_id, _encode(position, "badge", data))


def _resync(position: Position) -> Event:
    return Event(position, 0, _encode(position, "resync", "{}"))


def _encode(position: Position, name: str, data: str) -> bytes:
    return f"id: {_text(position)}\nevent: {name}\ndata: {data}\n\n".encode()


class Stream:
    """The ASGI application for /stream."""

    def __init__(self) -> None:
        self._hub: Hub | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] != "GET" or not request_user.is_known_host(scope):
            return await _refuse(send, 400, "Only pages of this site can read the live stream.")
        try:
            reader = await request_user.ask_database(_reader, scope)
        except Error as error:
            log.warning("couldn't start a live stream: %s", error)
            return await _refuse(send, 503, "The database is unreachable. The page polls instead.")
        if reader is None:
            return await _refuse(send, 401, "You’re signed out.")
        if self._hub is None:
            self._hub = Hub()
        connection = Connection(*reader)
        if self._hub.closed:
            return await _refuse(send, 503, "The site is restarting.")
        if self._hub.count(connection.user_id) >= CONNECTIONS_PER_USER:
            return await _refuse(send, 429, "You have too many pages open. This one polls instead.")
        after = header(scope, b"last-event-id") or _asked_position(scope)
        try:
            missed, upto = await self._hub.join(connection, after)
        except (RedisError, OSError):
            return await _refuse(send, 503, "Redis is unreachable. The page polls instead.")
        try:
            await _first_of(
                _write(connection, missed, upto, send),
                _until_gone(receive),
                _recheck(connection, scope),
                connection.lost.wait(),
            )
        finally:
            self._hub.leave(connection)
        with suppress(TimeoutError):  # one who does not read does not read this either
            async with asyncio.timeout(1):
                await send({"type": "http.response.body", "body": b""})


application = Stream()


def _reader(scope: Scope) -> tuple[int, set[int]] | None:
    """Who reads, and the accounts they may see; None when signed out. Asks the database."""
    user = request_user.find_user(scope)
    if not user.is_authenticated or not user.is_active:
        return None
    return user.pk, {account.pk for account in access.visible_accounts(user)}


def _asked_position(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("position", [""])[-1]


async def _first_of(*parts: Awaitable[Any]) -> None:
    """Run all parts until one of them ends; then end the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(connection: Connection, missed: list[Event], upto: Position, send: Send) -> None:
    """Send what was missed, then what comes after position `upto`."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    parts = [b"retry: 2000\n\n"]
    for event in missed:
        if not event.account_id or event.account_id in connection.accounts:
            parts.append(event.text)
    parts.append(b"event: live\ndata: {}\n\n")
    await _send(send, b"".join(parts))
    while True:
        event_or_none = await connection.next()
        if event_or_none is None:
            await _send(send, ALIVE)
        elif event_or_none.position > upto or not event_or_none.account_id:
            upto = min(upto, event_or_none.position)  # a Redis that was emptied begins anew
            await _send(send, event_or_none.text)


async def _send(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    """Returns when the browser has left, or the server is shutting down."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _recheck(connection: Connection, scope: Scope) -> None:
    """Keep up with the reader's rights; ends when they are signed out, or nobody can tell."""
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        reader = await request_user.ask_database(_reader, scope)
        if reader is None or reader[0] != connection.user_id:
            return
        connection.accounts = reader[1]


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
