"""Initial rows of the bundled MMS for tests, and a file server with files for a build."""

import http.server
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mms.models import Account, Image, Manifest, Model, Operation
from mms.tokens import create_account

DRIVER = "def init():\n    pass\n\ndef run(body):\n    return body\n"


def account() -> Account:
    return create_account("local", "local", f"a-{uuid.uuid4().hex[:8]}")


def image_operation(base_url: str = "http://models.example", model: str = "model.bin", **fields: object) -> Operation:
    """Create an operation that builds an image of a model and a driver at `base_url`."""
    owner = account()
    registered = Model.objects.create(account=owner, name="m", version=1, url=f"{base_url}/{model}")
    asset = {"id": "score", "url": f"{base_url}/score.py", "mimeType": "text/plain", "unPack": False}
    manifest = Manifest.objects.create(
        account=owner,
        driver_program="score",
        model_ids=["m"],
        resolved_model_ids=[str(registered.id)],
        assets=[asset],
        runtime_type="Python",
    )
    image = Image.objects.create(
        account=owner, manifest=manifest, registry_location="oci://local", registry_password="hidden-word"
    )
    return Operation.objects.create(account=owner, operation_type="Image", verb="create_image", image=image, **fields)


class Files(http.server.BaseHTTPRequestHandler):
    """Request handler with a driver, a model, and `/slow`, which takes a minute."""

    def do_GET(self) -> None:
        body = DRIVER.encode() if self.path == "/score.py" else b"x" * 600
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path != "/slow":
            self.wfile.write(body)
            return
        with suppress(OSError):  # the builder was stopped
            for _ in range(600):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def file_server() -> Iterator[str]:
    """Run a file server on loopback. Yield its URL."""
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
