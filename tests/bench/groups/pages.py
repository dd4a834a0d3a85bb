"""Pages: the list of models with few and with many rows."""

import statistics
import time
from collections.abc import Iterator

from tests.bench.browser import ColdPage, chromium, cold_page
from tests.bench.load import percentile
from tests.bench.ours import MODELS, Bench
from tests.bench.run import MB, Run, latency
from tests.bench.table import Row

QUERIES = ("", "?page=100", "?q=churn-42", "?sort=name", "?sort=-version")
MANY = {"last page": "?page=1000000", "search": "?q=churn-42", "newest only": "?newest=1"}
READERS = 8
READERS_LEAST = 100  # pages per second
WEB_PROCESSES = 2
MAX_KB = 40


def measure(run: Run) -> Iterator[Row]:
    """Measure one reader, a browser with an empty cache, and several readers at two web processes."""
    bench, seconds, what = run.bench, run.sizes.seconds, f"list page, {run.sizes.models:,} models"
    bench.seed_models(run.sizes.models)
    time.sleep(run.sizes.settling / 2)  # the models are mirrored; wait for related work to finish
    times, largest = _read(bench, QUERIES, run.sizes.requests)
    p95, median = percentile(times, 0.95), statistics.median(times)
    seen = f"p95 {p95:.0f} ms, median {median:.0f} ms, {largest / 1000:.1f} kB compressed"
    target = f"p95 ≤ 24 ms, ≤ {MAX_KB} kB compressed"
    yield Row(f"{what}, request to answer", seen, target, p95 <= 24 and largest <= MAX_KB * 1000)
    with chromium() as browser:
        ours = cold_page(browser, bench.site.url + MODELS, "tbody tr", cookies=bench.cookies())
    yield _cold_row(ours, run.theirs.cold_page() if run.theirs else None)
    before = bench.site.environment.get("WEB_PROCESSES", "0")  # 0 is the default
    bench.restart(WEB_PROCESSES=str(WEB_PROCESSES))
    bench.read_pages(clients=READERS, seconds=seconds, queries=QUERIES)  # loads the code of both processes
    read = bench.read_pages(clients=READERS, seconds=2 * seconds, queries=QUERIES)
    failed = f"; {read.failed} failed" if read.failed else ""
    seen = f"{read.per_second:.0f} pages per second, p95 {read.p95:.0f} ms{failed}"
    reached = read.per_second >= READERS_LEAST and not read.failed
    yield Row(f"... {READERS} readers, {WEB_PROCESSES} web processes", seen, f"≥ {READERS_LEAST} per second", reached)
    bench.restart(WEB_PROCESSES=before)


def with_many_models(run: Run) -> Iterator[Row]:
    """Measure the pages of a great list that are the most work."""
    run.bench.seed_models(run.sizes.many_models)
    time.sleep(run.sizes.settling / 2)
    for name, query in MANY.items():
        times, _ = _read(run.bench, [query], run.sizes.requests // 3)
        yield latency(f"list page, {run.sizes.many_models:,} models, {name}", times, 50)


def _read(bench: Bench, queries: "tuple[str, ...] | list[str]", requests: int) -> tuple[list[float], int]:
    """Return the milliseconds of each request, one after another, and the bytes of the largest response."""
    times, largest = [], 0
    for number in range(requests):
        started = time.perf_counter()
        with bench.pages.get(bench.site.url + MODELS + queries[number % len(queries)], stream=True) as answer:
            answer.raise_for_status()
            largest = max(largest, len(answer.raw.read(decode_content=False)))
        times.append((time.perf_counter() - started) * 1000)
    return times, largest


def _cold_row(ours: ColdPage, mlflow: ColdPage | None) -> Row:
    seen = f"{ours.seconds:.2f} s, {ours.bytes / 1000:.0f} kB, {ours.requests} requests"
    reached = ours.bytes <= 100_000
    target = "≤ 100 kB"
    if mlflow:
        seen += f" (MLflow {mlflow.seconds:.2f} s, {mlflow.bytes / MB:.1f} MB, {mlflow.requests} requests)"
        target = f"≤ 1/8 of MLflow's list of 1,000, {target}"
        reached = reached and ours.seconds <= mlflow.seconds / 8
    return Row("... in a browser, nothing cached", seen, target, reached)
