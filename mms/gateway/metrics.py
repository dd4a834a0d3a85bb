"""The gateway's metrics in the Prometheus text format."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable

BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class _ServiceMetrics:
    """Counters of one service."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.buckets = [0] * (len(BUCKET_SECONDS) + 1)
        self.seconds = 0.0


class Metrics:
    """Requests, errors and latency of each service since this process started. Unknown services have the id ""."""

    def __init__(self) -> None:
        self._services: dict[str, _ServiceMetrics] = {}

    def observe(self, service_id: str, status: int, seconds: float) -> None:
        """Count one response and its latency."""
        service = self._services.get(service_id)
        if service is None:
            service = self._services[service_id] = _ServiceMetrics()
        service.statuses[status] += 1
        service.buckets[bisect_left(BUCKET_SECONDS, seconds)] += 1
        service.seconds += seconds

    def retain(self, is_routed: Callable[[str], bool]) -> None:
        """Drop deleted services, so that the output doesn't grow forever."""
        self._services = {name: service for name, service in self._services.items() if not name or is_routed(name)}

    def render(self) -> bytes:
        """Return the metrics in the Prometheus text format, version 0.0.4."""
        requests, errors, latency = [], [], []
        for name, service in sorted(self._services.items()):
            label = f'service="{name}"'
            for status, count in sorted(service.statuses.items()):
                requests.append(f'mms_gateway_requests_total{{{label},code="{status}"}} {count}')
            for kind, first in (("client", 400), ("server", 500)):
                count = sum(n for status, n in service.statuses.items() if first <= status < first + 100)
                errors.append(f'mms_gateway_errors_total{{{label},class="{kind}"}} {count}')
            latency += _histogram(label, service)
        lines = [
            *_head("mms_gateway_requests_total", "counter", "Requests by service and status."),
            *requests,
            *_head("mms_gateway_errors_total", "counter", "Responses with status 4xx (client) and 5xx (server)."),
            *errors,
            *_head("mms_gateway_request_seconds", "histogram", "Time from the request's headers to the response."),
            *latency,
        ]
        return ("\n".join(lines) + "\n").encode()


def _histogram(label: str, service: _ServiceMetrics) -> list[str]:
    name, total, lines = "mms_gateway_request_seconds", 0, []
    for limit, count in zip((*BUCKET_SECONDS, "+Inf"), service.buckets, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{label},le="{limit}"}} {total}')
    return [*lines, f"{name}_sum{{{label}}} {service.seconds:.6f}", f"{name}_count{{{label}}} {total}"]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
