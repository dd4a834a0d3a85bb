"""A small HTTP server on loopback for downloads in tests. Each path is a function of the request handler."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Page = Callable[[BaseHTTPRequestHandler], None]


class Files:
    """File server with `pages` by path, the requested paths in `asked`, and the number of accepted `connections`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.connections = 0

    def put(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Serve `data` at `path`. Return the URL."""

        def page(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Type", content_type)
            request.send_header("Content-Length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)

        return self.serve(path, page)

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        def page(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", target)
            request.send_header("Content-Length", "0")
            request.end_headers()

        return self.serve(path, page)

    def serve(self, path: str, page: Page) -> str:
        self.pages[path] = page
        return self.url + path


@contextlib.contextmanager
def running_files() -> Iterator[Files]:
    """Run a server on a free port of 127.0.0.1 during the `with` block."""

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            files.connections += 1
            super().setup()

        def do_GET(self) -> None:
            files.asked.append(self.path)
            path = self.path.partition("?")[0]
            with contextlib.suppress(ConnectionError):
                files.pages.get(path, _missing)(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files = Files(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _missing(request: BaseHTTPRequestHandler) -> None:
    request.send_error(404)
