"""CPU time of a mirror refresh when nothing changed at the server."""

import json
import statistics
from collections.abc import Iterator

from tests.bench.run import Run
from tests.bench.table import Row

# The parts of the list's version to remove before each refresh, with the target in seconds of CPU (None: no target).
SERVERS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "server with change feeds": ((), 0.2),
    "server without, same bytes": (("cursor", "etag"), 1.5),
    "every row compared": (("cursor", "etag", "digest"), None),
}

# The site's workers are stopped, so that only this process reads the list.
REFRESH = """
    import json, time
    from deployments.live.badges import NOUN
    from deployments.mirror.refresh import refresh
    from deployments.models import HostingAccount, RegisteredModel
    account = HostingAccount.objects.get(name="local")
    for number in range({rounds} + 1):  # the first reads what the workers may have missed
        account.refresh_from_db()
        version = account.list_versions[NOUN[RegisteredModel]]
        version |= dict.fromkeys({removed}, "")
        HostingAccount.objects.filter(pk=account.pk).update(list_versions=account.list_versions)
        seen, started, cpu = account.models_seen_at, time.perf_counter(), time.process_time()
        refresh(account.pk, [RegisteredModel])
        used = time.process_time() - cpu, time.perf_counter() - started
        account.refresh_from_db()
        assert account.models_seen_at > seen, account.models_error
        if number:
            print(json.dumps(used))
"""
STOPPED = ("site:worker", "site:beat")


def measure(run: Run) -> Iterator[Row]:
    """Refresh a great list at each kind of server."""
    run.bench.seed_models(run.sizes.many_models)
    site = run.bench.site
    site.supervisorctl("stop", *STOPPED)
    try:
        for kind, (removed, limit) in SERVERS.items():
            printed = run.bench.shell(REFRESH.format(rounds=run.sizes.rounds, removed=removed))
            cpu, elapsed = zip(*map(json.loads, printed.splitlines()), strict=True)
            used = statistics.median(cpu)
            yield Row(
                f"mirror refresh of {run.sizes.many_models:,} unchanged models, {kind}",
                f"{used:.2f} s of CPU, {statistics.median(elapsed):.2f} s",
                f"≤ {limit:g} s of CPU" if limit else "",
                used <= limit if limit else None,
            )
    finally:
        site.supervisorctl("start", *STOPPED)
    run.bench.wait_for_health()
