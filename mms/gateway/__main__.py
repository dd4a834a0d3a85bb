"""Run the gateway: `python -m mms.gateway`."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mms.gateway.forward import Gateway
from mms.gateway.server import listen, serve


def parse_arguments() -> Namespace:
    """Return the command's options. Their defaults are HOST, GATEWAY_PORT or PORT, and MMS_ROUTES."""
    routes = os.environ.get("MMS_ROUTES") or Path(os.environ.get("DATA_DIR", "var"), "mms", "routes")
    port = os.environ.get("GATEWAY_PORT") or os.environ.get("PORT") or "8001"
    parser = ArgumentParser("python -m mms.gateway", description="Run the scoring gateway.")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"), help="address to listen on")
    parser.add_argument("--port", type=int, default=int(port))
    parser.add_argument("--share-port", action="store_true", help="let other processes listen on the same port")
    parser.add_argument("--routes", type=Path, default=Path(routes), help="folder of the route files")
    parser.add_argument("--metrics", type=Path, help="folder in which several processes add up their metrics")
    parser.add_argument("--origin", action="append", default=[], help="origin of browser applications, or *")
    return parser.parse_args()


def metrics_token() -> str:
    """Return METRICS_TOKEN, or the content of the file that METRICS_TOKEN_FILE names."""
    if path := os.environ.get("METRICS_TOKEN_FILE"):
        return Path(path).read_text().strip()
    return os.environ.get("METRICS_TOKEN", "").strip()


def main() -> None:
    """Serve until SIGTERM."""
    options = parse_arguments()
    gateway = Gateway(options.routes, metrics_token(), options.metrics, options.origin)
    try:
        listening = listen(options.host, options.port, share=options.share_port)
    except OSError as error:
        sys.exit(f"Can't listen on {options.host} port {options.port}: {error.strerror or error}.")
    serve(gateway, listening)


if __name__ == "__main__":
    main()
