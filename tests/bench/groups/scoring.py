"""Scoring through the gateway: compared with the service itself, beside other work, and while other parts restart."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator

from tests.bench import load
from tests.bench.load import Result
from tests.bench.run import Run, against_mlflow, compared
from tests.bench.table import Row

CLIENTS = 4  # beside other work
READERS = 8
LEAD_SECONDS = 0.5  # other work starts so much earlier
RESTARTED = ("site:web", "site:worker", "site:mms-worker", "site:beat")


def measure(run: Run) -> Iterator[Row]:
    """Compare with the service called directly, with MLflow, and with scoring beside readers of pages and lists."""
    service, seconds = run.bench.service(), run.sizes.seconds
    for clients in (1, 16):

        def directly(clients: int = clients) -> Result:
            return run.bench.score_directly(service, clients=clients, seconds=seconds)

        def through_gateway(clients: int = clients) -> Result:
            return run.bench.score_through_gateway(service, clients=clients, seconds=seconds)

        pairs = run.alternate(directly, through_gateway)
        many = "1 client" if clients == 1 else f"{clients} clients"
        yield compared(f"scoring through the gateway, {many}", pairs, "the service called directly", 0.8)
    if run.theirs:
        theirs = run.theirs.score()
        yield against_mlflow("scoring, 16 clients, service called directly", pairs[-1][0], theirs, 5)
        yield against_mlflow("... through the gateway", pairs[-1][1], theirs, 2.5, p99_share=0.25)
    yield _beside_pages(run)
    run.bench.seed_models(run.sizes.models)
    yield _beside_list(run, run.sizes.models)


def beside_many_models(run: Run) -> Iterator[Row]:
    """Score while a client lists a great number of models."""
    run.bench.seed_models(run.sizes.many_models)
    yield _beside_list(run, run.sizes.many_models)


def during_outages(run: Run) -> Iterator[Row]:
    """Score while every other part of the site stops and starts."""
    site, message, stopped = run.bench.site, run.bench.scoring_request(run.bench.service()), threading.Event()

    def restart() -> None:
        for name in RESTARTED:
            site.supervisorctl("restart", name)
        site.supervisorctl("stop", "redis", *RESTARTED)
        time.sleep(run.sizes.seconds)
        site.supervisorctl("start", "redis", *RESTARTED)
        stopped.set()

    restarting = threading.Thread(target=restart)
    restarting.start()
    seen = load.run(site.gateway_url, lambda _: None if stopped.is_set() else message, clients=CLIENTS, seconds=300)
    restarting.join()
    yield Row(
        "scoring while web server, workers and Redis restart, then stop together and start",
        f"{seen.failed} of {seen.requests} requests failed in {seen.seconds:.0f} s; longest {seen.longest:.0f} ms",
        "0 failed",
        seen.failed == 0,
    )
    run.bench.wait_for_health()


def _beside_pages(run: Run) -> Row:
    def read() -> Result:
        return run.bench.read_pages(clients=READERS, seconds=run.sizes.seconds + 2 * LEAD_SECONDS)

    pairs, others = _alone_and_beside(run, read)
    what = f"scoring, {CLIENTS} clients, beside {READERS} readers of pages"
    more = f"; {statistics.median(other.per_second for other in others):.0f} pages per second"
    return compared(what, pairs, "alone", 0.45, most_p99=3, more=more)


def _beside_list(run: Run, count: int) -> Row:
    def read() -> Result:
        return run.bench.list_models(clients=1, seconds=run.sizes.seconds + 2 * LEAD_SECONDS)

    pairs, others = _alone_and_beside(run, read)
    what = f"scoring, {CLIENTS} clients, beside a client that lists {count:,} models"
    more = f"; a list took {statistics.median(other.median for other in others) / 1000:.2f} s"
    return compared(what, pairs, "alone", 0.6, longest_ms=50, more=more)


def _alone_and_beside(run: Run, work: Callable[[], Result]) -> tuple[list[tuple[Result, Result]], list[Result]]:
    """Return the results of scoring alone and beside the work, in pairs, and those of the work."""
    service, others = run.bench.service(), list[Result]()

    def alone() -> Result:
        return run.bench.score_through_gateway(service, clients=CLIENTS, seconds=run.sizes.seconds)

    def beside() -> Result:
        with load.in_background(work) as finish:
            time.sleep(LEAD_SECONDS)
            seen = alone()
            others.append(finish())
        return seen

    pairs = run.alternate(alone, beside)
    if failed := sum(other.failed for other in others):  # work that is refused isn't a load
        raise RuntimeError(f"{failed} requests of the work beside scoring failed")
    return pairs, others
