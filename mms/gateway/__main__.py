"""Run the gateway: `python -m mms.gateway`."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mms.gateway.app import Gateway


def parse_arguments() -> Namespace:
    """Return the command's options. Their defaults are HOST, GATEWAY_PORT or PORT, and MMS_ROUTES."""
    routes = os.environ.get("MMS_ROUTES") or Path(os.environ.get("DATA_DIR", "var"), "mms", "routes")
    port = os.environ.get("GATEWAY_PORT") or os.environ.get("PORT") or "8001"
    parser = ArgumentParser("python -m mms.gateway", description="Run the scoring gateway.")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"), help="address to listen on")
    parser.add_argument("--port", type=int, default=int(port))
    parser.add_argument("--routes", type=Path, default=Path(routes), help="folder of the route files")
    return parser.parse_args()


def metrics_token() -> str:
    """Return METRICS_TOKEN, or the content of the file that METRICS_TOKEN_FILE names."""
    if path := os.environ.get("METRICS_TOKEN_FILE"):
        return Path(path).read_text().strip()
    return os.environ.get("METRICS_TOKEN", "")


def main() -> None:
    """Serve until SIGTERM."""
    import uvicorn

    options = parse_arguments()
    gateway = Gateway(options.routes, metrics_token=metrics_token())
    uvicorn.run(
        gateway, host=options.host, port=options.port, access_log=False, server_header=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
