"""Latency of badge changes in a real browser, measured from two points on the same machine."""

import json
import time
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page

from tests.bench.browser import chromium
from tests.bench.ours import Bench
from tests.bench.run import Run, latency
from tests.bench.table import Row

# Records the time of every badge change on the page.
WATCH = """() => {
  const last = {}; window.changes = [];
  const look = () => document.querySelectorAll('[data-badge]').forEach(badge => {
    const {badge: key, state} = badge.dataset;
    if (last[key] !== state) { last[key] = state; window.changes.push([Date.now() / 1000, key, state]); }
  });
  look();
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""

# Acts as the worker: writes state changes to Redis, as the pipeline does.
FLIP = """
    import json, time
    from deployments.live.events import publish_operation
    from deployments.models import Operation
    operation = Operation.objects.get(pk="{pk}")
    kept = operation.state
    time.sleep(1)
    for number in range({flips}):
        operation.state = ("running", "not_started")[number % 2]
        at = time.time()
        publish_operation(operation)
        print(json.dumps([at, operation.state]), flush=True)
        time.sleep(0.25)
    operation.state = kept
    publish_operation(operation)
"""

# Runs small builds of one manifest in sequence through the pipeline, and prints when the MMS ended each.
BUILD = """
    import json, time
    from deployments.operations.submit import create_image
    from deployments.models import HostingAccount, Image, Operation
    from mms.models import Operation as MmsOperation
    account = HostingAccount.objects.get(name="local")
    image = Image.objects.filter(account=account, digest__gt="").latest("pk")
    for number in range({builds}):
        time.sleep(0.37)
        new = create_image(account, "bench", manifest=image.manifest, registry=account.registries.first())
        until = time.time() + 60
        while time.time() < until and (now := Operation.objects.get(pk=new.pk)).is_open:
            time.sleep(0.05)
        assert now.state == "succeeded", now.error_message
        ended = MmsOperation.objects.get(pk=now.mms_operation_id).ended_at.timestamp()
        print(json.dumps([ended, f"operation-{{now.pk}}"]), flush=True)
    time.sleep(2)
"""


def measure(run: Run) -> Iterator[Row]:
    """Measure from the write of a worker, and from the end of an operation at the MMS."""
    run.bench.service()
    flips, builds = (4, 2) if run.sizes.rounds == 1 else (40, 20)
    yield latency("state known to the worker → badge in the browser", _worker_to_badge(run.bench, flips), 200)
    yield latency("operation ends at the MMS → badge, polling included", _mms_to_badge(run.bench, builds), 1500)


def _worker_to_badge(bench: Bench, flips: int) -> list[float]:
    """Return the milliseconds from a worker's write of a new state to the badge change, for each change."""
    pk = bench.shell("from deployments.models import Operation; print(Operation.objects.latest('requested_at').pk)")
    changes, printed = _watch(bench, FLIP.format(pk=pk, flips=flips))
    seen = [(at, state) for at, key, state in changes if key == f"operation-{pk}"]
    # The row also refreshes from the database, which restores the old state, so the next write is a change again.
    return [
        (min(at for at, shown in seen if shown == state and at >= begun) - begun) * 1000 for begun, state in printed
    ]


def _mms_to_badge(bench: Bench, builds: int) -> list[float]:
    """Return the milliseconds from the end of an operation at the MMS to its badge change, for each operation."""
    changes, printed = _watch(bench, BUILD.format(builds=builds))
    shown = {key: at for at, key, state in reversed(changes) if state == "succeeded"}
    return [(shown[key] - ended) * 1000 for ended, key in printed]


def _watch(bench: Bench, code: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """Run `code` in the site while a browser shows the operations. Return the badge changes and the printed output."""
    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies(bench.cookies())
        page = context.new_page()
        page.goto(f"{bench.site.url}/accounts/local/operations/")
        page.wait_for_selector('[data-live="live"]')
        page.evaluate(WATCH)
        process = bench.shell_in_background(code)
        _wait(page, process.poll)
        assert process.stdout
        printed = [json.loads(line) for line in process.stdout]
        assert process.returncode == 0, printed
        return page.evaluate("window.changes"), printed


def _wait(page: Page, ended: Any, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while ended() is None:
        assert time.monotonic() < until, f"the site didn't finish within {seconds} s"
        page.wait_for_timeout(100)  # lets the page process its events
    page.wait_for_timeout(500)
