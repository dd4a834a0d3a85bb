"""The ASGI applications for uploads and downloads, as the site serves them."""

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from dashboard.files import download, upload


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Serve /files/ and /uploads/."""
    is_download = scope["type"] == "http" and scope["path"].startswith("/files/")
    await (download if is_download else upload).application(scope, receive, send)
