"""Figures of the benchmark. Each function measures one and returns its rows."""

import signal
import statistics
import subprocess
import time
from pathlib import Path

import requests

from tests.bench import bare, live
from tests.bench.browser import ColdPage, chromium, cold_page
from tests.bench.load import Result, percentile
from tests.bench.memory import pss_of_tree
from tests.bench.ours import Bench
from tests.bench.table import Row

MB = 1e6
MODELS = "/accounts/local/models/"
SEED = """
    import time
    from deployments.mirror.refresh import request_refresh
    from deployments.models import HostingAccount, RegisteredModel
    from mms.models import Account, Model
    there = Account.objects.get(name="local")
    Model.objects.bulk_create(
        (
            Model(account=there, name=f"churn-{n % 500}", version=n // 500 + 1, tags=["bench", f"t{n % 7}"],
                  url=f"https://models.example/churn-{n}.pkl", description="Customer churn")
            for n in range(10_000)
        ),
        batch_size=1000,
    )
    account = HostingAccount.objects.get(name="local")
    request_refresh(account)
    until = time.time() + 120
    while (found := RegisteredModel.objects.filter(account=account, vanished_at=None).count()) < 10_000:
        assert time.time() < until, f"only {found} models arrived in the mirror"
        time.sleep(0.2)
"""


def list_page(bench: Bench) -> list[Row]:
    """Measure the list of 10,000 mirrored models: server time and size for several requests."""
    bench.shell(SEED)
    time.sleep(10)  # the models are mirrored; wait for related work to finish
    queries = ["", "?page=100", "?q=churn-42", "?sort=name", "?sort=-version"]
    times, largest = [], 0
    for number in range(300):
        started = time.perf_counter()
        with bench.pages.get(bench.site.url + MODELS + queries[number % 5], stream=True) as answer:
            answer.raise_for_status()
            largest = max(largest, len(answer.raw.read(decode_content=False)))
        times.append((time.perf_counter() - started) * 1000)
    p95, median = percentile(times, 0.95), statistics.median(times)
    seen = f"p95 {p95:.0f} ms, median {median:.0f} ms, {largest / 1000:.1f} kB compressed"
    target = "p95 ≤ 40 ms, ≤ 40 kB compressed"
    return [Row("list page, 10 000 models, request to answer", seen, target, p95 <= 40 and largest <= 40_000)]


def cold_list_page(bench: Bench) -> ColdPage:
    """Measure the same page in a browser with an empty cache."""
    with chromium() as browser:
        return cold_page(browser, bench.site.url + MODELS, "tbody tr", cookies=bench.cookies())


def cold_row(ours: ColdPage, mlflow: ColdPage | None) -> list[Row]:
    seen = f"{ours.seconds:.2f} s, {ours.bytes / 1000:.0f} kB, {ours.requests} requests"
    reached = ours.bytes <= 100_000
    if mlflow:
        seen += f" (MLflow {mlflow.seconds:.2f} s, {mlflow.bytes / MB:.1f} MB, {mlflow.requests} requests)"
        reached = reached and ours.seconds <= mlflow.seconds / 8
    return [Row("the same in a browser, nothing cached", seen, "≤ 1/8 of MLflow's list of 1 000, ≤ 100 kB", reached)]


def badges(bench: Bench) -> list[Row]:
    worker, mms = live.worker_to_badge(bench), live.mms_to_badge(bench)
    return [
        _latency("state known to the worker → badge in the browser", worker, 200),
        _latency("operation ends at the MMS → badge, polling included", mms, 1500),
    ]


def _latency(what: str, values: list[float], limit: float) -> Row:
    p95 = percentile(values, 0.95)
    seen = f"p95 {p95:.0f} ms, median {statistics.median(values):.0f} ms, n = {len(values)}"
    return Row(what, seen, f"p95 ≤ {limit:.0f} ms", p95 <= limit)


def against(what: str, ours: Result, theirs: Result | None, ratio: float, *, p99_share: float = 0) -> Row:
    """Return a row that compares rates, and with `p99_share` the p99 latency, with MLflow's if it was measured."""
    assert not ours.failed, f"{what}: {ours.failed} of {ours.requests} requests failed"
    seen = f"{ours.per_second:.0f} per second, p99 {ours.p99:.0f} ms"
    target = f"≥ {ratio:g} × MLflow" + (f", p99 ≤ {p99_share:g} of its" if p99_share else "")
    if theirs is None:
        return Row(what, seen, target)
    times = ours.per_second / theirs.per_second
    seen += f"; {times:.1f} × MLflow ({theirs.per_second:.0f} per second, p99 {theirs.p99:.0f} ms)"
    reached = times >= ratio and (not p99_share or ours.p99 <= p99_share * theirs.p99)
    return Row(what, seen, target, reached)


def deploy(bench: Bench, app: Path, site_packages: Path, runs: int = 5) -> list[Row]:
    """Measure time and memory of deploying a built image, compared with a bare process that does the same work."""
    image, cluster = bench.shell(
        "from deployments.models import Cluster, Image; "
        "print(Image.objects.filter(digest__gt='').latest('pk').pk, Cluster.objects.first().pk)"
    ).split()
    ours, yardstick, memory, least = [], [], [], []
    for _ in range(runs):
        with bare.running(app, site_packages) as process:
            yardstick.append(process.seconds)
            least.append(process.memory)
        name = f"bench-{time.time_ns()}"
        ours.append(bench.deploy_and_score(name, image, cluster))
        service = bench.services()[name]
        memory.append(_service_memory(bench, str(service["id"])))
        bench.delete(str(service["id"]))
    seconds, bare_seconds = statistics.median(ours), statistics.median(yardstick)
    used, bare_used = statistics.median(memory), statistics.median(least)
    return [
        Row(
            "click on deploy → first good score",
            f"{seconds:.2f} s; a bare process {bare_seconds:.2f} s",
            "≤ the bare process + 1.2 s",
            seconds <= bare_seconds + 1.2,
        ),
        Row(
            "memory of one iris service (PSS)",
            f"{used / MB:.0f} MB; the bare process {bare_used / MB:.0f} MB",
            "≤ 1.15 × the bare process",
            used <= 1.15 * bare_used,
        ),
    ]


def _service_memory(bench: Bench, service_id: str) -> int:
    """Return the memory in bytes (PSS) of all supervised processes of the service."""
    wanted = service_id.replace("-", "")
    names = [line.split()[0] for line in bench.site.supervisorctl("status").splitlines() if wanted in line]
    assert names, f"no program runs for service {service_id}"
    return sum(pss_of_tree(int(bench.site.supervisorctl("pid", name))) for name in names)


def idle_memory(bench: Bench) -> list[Row]:
    """Measure the memory of everything that `make up` starts, idle and without a deployed service."""
    time.sleep(20)
    assert bench.site.process
    used = pss_of_tree(bench.site.process.pid)
    return [Row("memory of everything idle (PSS)", f"{used / MB:.0f} MB", "≤ 450 MB", used <= 450 * MB)]


def second_start(bench: Bench) -> list[Row]:
    """Stop the site and measure a second `make up` until a page answers."""
    times = []
    for _ in range(3):
        bench.site.stop(signal.SIGTERM)  # make forwards SIGTERM; Ctrl-C in a terminal reaches both processes
        started = time.perf_counter()
        process = subprocess.Popen(
            ["make", "up"],
            cwd=Path(__file__).parents[2],
            env=bench.site.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        bench.site.process = process
        while not _page_answers(bench):
            assert process.poll() is None, "make up ended"
            time.sleep(0.02)
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times)
    return [Row("second `make up` until a page answers", f"{seconds:.1f} s", "≤ 5 s", seconds <= 5)]


def _page_answers(bench: Bench) -> bool:
    try:
        return bool(requests.get(f"{bench.site.url}/sign-in/", timeout=5).ok)
    except requests.ConnectionError:
        return False
