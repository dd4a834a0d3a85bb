"""Protection of workers from messages that they can't read.

In Celery and Kombu, an unreadable message raises an exception that ends the worker. When the worker restarts, the
message is delivered again and ends it again. `install` makes the Redis channel check each message first, and drop one
that no worker could process. Nothing is lost: messages are hints, and the database stores what is due.

This module uses private names of Kombu; tests/unit/dashboard/ops/test_celery_internals.py fails if a release changes
them.
"""

import base64
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import redis
from kombu.transport.redis import Channel, Transport

from dashboard.ops.supervisor import heartbeat

RETENTION_SECONDS = 24 * 3600  # of the number of dropped messages in Redis
LOG_INTERVAL_SECONDS = 60.0  # between two log lines about dropped messages, because their number has no limit
CONTENT_TYPE = "application/json"  # as in CELERY_ACCEPT_CONTENT
# What code raises for data of an unexpected type or value. None of these is an error of the connection.
DATA_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

log = logging.getLogger(__name__)


def install(url: str) -> None:
    """Make the Redis channels of this process drop unreadable messages, and count them in the Redis at `url`."""
    TolerantChannel.dropped = DroppedMessages(heartbeat.connect(url))
    Transport.Channel = TolerantChannel


def dropped_key(queue: str) -> str:
    """Return the Redis key with the number of messages dropped from the queue within RETENTION_SECONDS."""
    return f"messages:dropped:{queue}"


def unreadable_reason(message: Any) -> str:
    """Return why no worker can process a message, or "" if it has the form of one that Celery sends."""
    if not isinstance(message, dict):
        return "it isn't an object"
    properties, headers = message.get("properties"), message.get("headers")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        return "it has no delivery tag"
    if not isinstance(properties.get("delivery_info"), dict):
        return "it has no delivery information"
    if not isinstance(headers, dict) or not all(isinstance(headers.get(name), str) for name in ("task", "id")):
        return "it names no task"
    if message.get("content-type") != CONTENT_TYPE:
        return "its content isn't JSON"
    try:
        arguments = json.loads(base64.b64decode(message.get("body", ""), validate=True))
    except (ValueError, TypeError, RecursionError):
        return "its body can't be decoded"
    if not isinstance(arguments, list) or [type(part) for part in arguments] != [list, dict, dict]:
        return "its body has no arguments"
    return ""


class DroppedMessages:
    """Reports dropped messages in the log and counts them in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.logged_at = 0.0
        self.unlogged = 0

    def add(self, queue: str, reason: str) -> None:
        """Report one message. Its content isn't logged, because it can be anything."""
        self.unlogged += 1
        if (now := time.monotonic()) - self.logged_at >= LOG_INTERVAL_SECONDS or not self.logged_at:
            log.error("Unreadable messages dropped from queue %s: %d. The last one: %s.", queue, self.unlogged, reason)
            self.logged_at, self.unlogged = now, 0
        try:
            self.client.incr(dropped_key(queue))
            self.client.expire(dropped_key(queue), RETENTION_SECONDS)
        except redis.RedisError as error:
            log.info("Couldn't count a dropped message: %s", error)


class TolerantChannel(Channel):
    """A Redis channel that drops unreadable messages instead of raising."""

    dropped: DroppedMessages

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call] # Kombu has no types
        except ValueError:  # the message isn't text, or isn't JSON
            self.dropped.add(", ".join(self.active_queues), "it isn't JSON")
            return True

    def basic_consume(self, queue: str, *arguments: Any, **options: Any) -> Any:
        """Check each message of the queue before it is delivered."""
        result = super().basic_consume(queue, *arguments, **options)  # type: ignore[no-untyped-call]
        self.connection._callbacks[queue] = self._checked(queue, self.connection._callbacks[queue])
        return result

    def _checked(self, queue: str, deliver: Callable[[Any], Any]) -> Callable[[Any], None]:
        def check(message: Any) -> None:
            if reason := unreadable_reason(message):
                self.dropped.add(queue, reason)
                return
            try:
                deliver(message)
            except DATA_ERRORS as error:
                self.dropped.add(queue, f"{type(error).__name__}: {str(error)[:200]}")
                self.qos.ack(message["properties"]["delivery_tag"])

        return check
