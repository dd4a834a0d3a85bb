"""The gateway's metrics in the Prometheus text format, summed over all processes that share a folder.

Each process counts in its memory, and copies that to a file of its own, which it locks, within FLUSH_SECONDS. Any
process can render the sum. A process that takes over the file of an earlier one continues its counters, so they don't
decrease at a restart. The file isn't mapped into memory: if the disk were full, writing there would end the process.
"""

import asyncio
import fcntl
import logging
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
STATUSES = (*range(200, 204), *range(400, 600))  # every status that the gateway sends
FLUSH_SECONDS = 0.25
MAX_FILES = 1000
MAX_SERVICES = 4096  # per process; further ones are counted as unknown
# A record: the service's id, a counter per status, a counter per bucket, and the sum of the latencies. Record 0 is for
# unknown services.
ID_BYTES = 64
_STATUS = ID_BYTES // 8
_BUCKET = _STATUS + len(STATUSES)
_SECONDS = _BUCKET + len(BUCKET_SECONDS) + 1
RECORD_WORDS = _SECONDS + 1
RECORD_BYTES = RECORD_WORDS * 8
log = logging.getLogger(__name__)
_STATUS_INDEX = {status: _STATUS + index for index, status in enumerate(STATUSES)}


class _Counters:
    """Records in memory, as 64-bit integers and as floating-point numbers."""

    def __init__(self, content: bytes = b"") -> None:
        """Continue the records in the content of a file."""
        records = min(max(1, len(content) // RECORD_BYTES), MAX_SERVICES)
        self._memory = bytearray(content[: records * RECORD_BYTES].ljust(records * RECORD_BYTES, b"\0"))
        self._cast()

    def _cast(self) -> None:
        view = memoryview(self._memory)
        self.integers, self.floats = view.cast("Q"), view.cast("d")

    def content(self) -> bytes:
        """Return the records as the content of a file."""
        return bytes(self._memory)

    def records(self) -> Iterator[tuple[int, str]]:
        """Yield the first word and the service id of each record in use."""
        yield 0, ""
        for word in range(RECORD_WORDS, len(self.integers), RECORD_WORDS):
            if self.integers[word]:
                yield word, self._memory[word * 8 : word * 8 + ID_BYTES].rstrip(b"\0").decode("ascii", "replace")

    def assign(self, word: int, service_id: str) -> None:
        """Assign a free record, or the one after the last, to a service."""
        if word == len(self.integers):
            self._memory = self._memory + bytes(RECORD_BYTES)  # a new object: the views of the old one prevent resizing
            self._cast()
        self._memory[word * 8 : word * 8 + ID_BYTES] = service_id.encode("ascii").ljust(ID_BYTES, b"\0")

    def free(self, word: int) -> None:
        """Delete the record of a service."""
        self._memory[word * 8 : (word + RECORD_WORDS) * 8] = bytes(RECORD_WORDS * 8)


class Metrics:
    """Requests, errors and latency of each service. Unknown services have the id ""."""

    def __init__(self, folder: Path | None = None) -> None:
        """Count in a file in `folder`, shared with other processes, or in memory if there is none."""
        self._folder = folder
        self._file = _acquire_file(folder) if folder else None
        self._own = _Counters(os.pread(self._file, MAX_SERVICES * RECORD_BYTES, 0) if self._file is not None else b"")
        self._words = {service_id: word for word, service_id in self._own.records()}
        self._will_flush = self._file is None

    def observe(self, service_id: str, status: int, seconds: float) -> None:
        """Count one response and its latency."""
        word = self._words.get(service_id)
        if word is None:
            word = self._add(service_id)
        integers = self._own.integers
        integers[word + _STATUS_INDEX[status]] += 1
        integers[word + _BUCKET + bisect_left(BUCKET_SECONDS, seconds)] += 1
        self._own.floats[word + _SECONDS] += seconds
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the counters for other processes. If the disk is full, they are written later."""
        if self._file is not None:
            self._will_flush = False
            with suppress(OSError):
                os.pwrite(self._file, self._own.content(), 0)

    def close(self) -> None:
        """Write the counters and leave the file to another process."""
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file, self._will_flush = None, True

    def render(self, is_routed: Callable[[str], bool] = lambda _: True) -> bytes:
        """Return the metrics of routed services in the Prometheus text format, version 0.0.4."""
        self._drop_deleted(is_routed)
        services = self._sum(is_routed)
        requests, errors, latency = [], [], []
        for name, words in sorted(services.items()):
            label = f'service="{name}"'
            counts = {status: int(words[index]) for status, index in _STATUS_INDEX.items() if words[index]}
            requests += [
                f'mms_gateway_requests_total{{{label},code="{status}"}} {count}' for status, count in counts.items()
            ]
            for kind, first in (("client", 400), ("server", 500)):
                total = sum(count for status, count in counts.items() if first <= status < first + 100)
                errors.append(f'mms_gateway_errors_total{{{label},class="{kind}"}} {total}')
            latency += _histogram(label, [int(count) for count in words[_BUCKET:_SECONDS]], words[_SECONDS])
        lines = [
            *_head("mms_gateway_requests_total", "counter", "Requests by service and status."),
            *requests,
            *_head("mms_gateway_errors_total", "counter", "Responses with status 4xx (client) and 5xx (server)."),
            *errors,
            *_head("mms_gateway_request_seconds", "histogram", "Time from the request's headers to the response."),
            *latency,
        ]
        return ("\n".join(lines) + "\n").encode()

    def _add(self, service_id: str) -> int:
        used = set(self._words.values())
        words = range(RECORD_WORDS, MAX_SERVICES * RECORD_WORDS, RECORD_WORDS)  # up to one after the last is free
        word = next((word for word in words if word not in used), 0)  # 0 once all are in use
        if word:
            self._own.assign(word, service_id)
            self._words[service_id] = word
        return word

    def _drop_deleted(self, is_routed: Callable[[str], bool]) -> None:
        """Free the records of deleted services, so that the file doesn't fill up."""
        for service_id in [name for name in self._words if name and not is_routed(name)]:
            self._own.free(self._words.pop(service_id))

    def _sum(self, is_routed: Callable[[str], bool]) -> dict[str, list[float]]:
        """Return the words of all processes' records, added up by service. Services without requests are omitted."""
        services: dict[str, list[float]] = defaultdict(lambda: [0] * RECORD_WORDS)
        for counters in self._all_counters():
            for word, name in counters.records():
                if any(counters.integers[word + _BUCKET : word + _SECONDS]) and (not name or is_routed(name)):
                    total = services[name]
                    for index in range(_STATUS, _SECONDS):
                        total[index] += counters.integers[word + index]
                    total[_SECONDS] += counters.floats[word + _SECONDS]
        return services

    def _all_counters(self) -> Iterable[_Counters]:
        yield self._own
        for path in sorted(self._folder.glob("*.counters")) if self._folder else []:
            if self._file is None or not os.path.samestat(path.stat(), os.fstat(self._file)):
                yield _Counters(path.read_bytes())


def _acquire_file(folder: Path) -> int | None:
    """Return the descriptor of the first counter file that no other process has locked. It stays open and locked.

    Return None if there is none or the folder isn't writable: requests are more important than their metrics.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(MAX_FILES):
            descriptor = os.open(folder / f"{number}.counters", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return descriptor
    except OSError as error:
        log.warning("Can't store metrics in %s: %s. This process counts separately.", folder, error.strerror)
    return None


def _histogram(label: str, buckets: list[int], seconds: float) -> list[str]:
    name, total, lines = "mms_gateway_request_seconds", 0, []
    for limit, count in zip((*BUCKET_SECONDS, "+Inf"), buckets, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{label},le="{limit}"}} {total}')
    return [*lines, f"{name}_sum{{{label}}} {seconds:.6f}", f"{name}_count{{{label}}} {total}"]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
