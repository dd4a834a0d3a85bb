"""Comparison server for streams: the shortest Django application that sends each event to every open stream.

It reads the same Redis stream as the site, without sign-in, access checks, replayed events and rendered badges. Run by
uvicorn as the site's web server is: `uvicorn tests.bench.plain:application`, with REDIS_URL.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path

settings.configure(SECRET_KEY="bench", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
queues: set[asyncio.Queue[bytes]] = set()
readers: list[asyncio.Task[None]] = []


async def read() -> None:
    """Put each event of the Redis stream into the queue of every open stream."""
    client: Any = redis.asyncio.from_url(os.environ["REDIS_URL"], protocol=2, socket_timeout=10)
    newest = await client.xrevrange("live", count=1)
    position = newest[0][0] if newest else b"0"
    while True:
        for _, entries in await client.xread({"live": position}, block=5000):
            for name, fields in entries:
                position = name
                data = {key.decode(): value.decode() for key, value in fields.items()}
                text = f"id: {name.decode()}\nevent: badge\ndata: {json.dumps(data)}\n\n".encode()
                for queue in queues:
                    queue.put_nowait(text)


async def events() -> AsyncIterator[bytes]:
    """Yield the events from now on."""
    if not readers:
        readers.append(asyncio.create_task(read()))
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues.add(queue)
    try:
        yield b"event: live\ndata: {}\n\n"
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Respond with an endless event stream."""
    return StreamingHttpResponse(events(), content_type="text/event-stream")


urlpatterns = [path("stream", stream)]
application = get_asgi_application()
