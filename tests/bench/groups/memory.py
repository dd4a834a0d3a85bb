"""Memory of the whole site as PSS: idle, and after work."""

import time
from collections.abc import Iterator

from tests.bench.run import MB, Run
from tests.bench.table import Row

# Reads every list again, as after a failure.
REFRESH = """
    from deployments.mirror.refresh import request_refresh
    from deployments.models import HostingAccount
    request_refresh(HostingAccount.objects.get(name="local"))
"""


def idle(run: Run) -> Iterator[Row]:
    """Measure everything that `make up` starts, without a service."""
    time.sleep(run.sizes.settling)
    used = run.bench.tree / MB
    yield Row("memory of everything idle (PSS)", f"{used:.0f} MB", "≤ 320 MB", used <= 320)


def after_load(run: Run) -> Iterator[Row]:
    """Measure after scoring, pages, lists and a refresh of a great number of models, with a service."""
    bench, seconds = run.bench, run.sizes.seconds
    service = bench.service()
    bench.seed_models(run.sizes.many_models)
    bench.score_through_gateway(service, clients=16, seconds=seconds)
    bench.read_pages(clients=8, seconds=seconds)
    bench.list_models(clients=4, seconds=seconds)
    bench.shell(REFRESH)
    time.sleep(run.sizes.settling * 2)
    used = bench.tree / MB
    names = {"worker": "site:worker", "web": "site:web", "MMS worker": "site:mms-worker", "gateway": "gateway"}
    parts = ", ".join(f"{name} {bench.program_memory(program) / MB:.0f}" for name, program in names.items())
    what = f"memory after load, with {run.sizes.many_models:,} models and a service (PSS)"
    yield Row(what, f"{used:.0f} MB: {parts} and others", "≤ 500 MB", used <= 500)
