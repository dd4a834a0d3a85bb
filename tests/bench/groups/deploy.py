"""Time and memory of a deployed service, compared with a process that does nothing else."""

import statistics
import time
from collections.abc import Iterator

from mms.images.store.layout import Store
from tests.bench import bare
from tests.bench.memory import pss_of_tree
from tests.bench.ours import Bench
from tests.bench.run import MB, Run
from tests.bench.table import Row


def measure(run: Run) -> Iterator[Row]:
    """Deploy a built image repeatedly."""
    bench = run.bench
    digest = bench.api.get(f"{bench.api_url}/images/{_image(bench)}").json()["digest"]
    built = Store(bench.site.data / "mms").assemble(digest)
    assert built.site
    image, cluster = bench.shell(
        "from deployments.models import Cluster, Image; "
        "print(Image.objects.filter(digest__gt='').latest('pk').pk, Cluster.objects.first().pk)"
    ).split()
    ours, baseline, memory, least = [], [], [], []
    for number in range(2 * run.sizes.rounds):
        with bare.running(built.app, built.site) as process:
            baseline.append(process.seconds)
            least.append(process.memory)
        name = f"bench-{number}"
        ours.append(bench.deploy_and_score(name, image, cluster))
        service = str(bench.services()[name]["id"])
        memory.append(_service_memory(bench, service))
        bench.delete(service)
        time.sleep(1)
    seconds, bare_seconds = statistics.median(ours), statistics.median(baseline)
    used, bare_used = statistics.median(memory), statistics.median(least)
    yield Row(
        "click on deploy → first good score",
        f"{seconds:.2f} s, longest {max(ours):.2f} s; a bare process {bare_seconds:.2f} s",
        "≤ the bare process + 1.2 s",
        seconds <= bare_seconds + 1.2,
    )
    yield Row(
        "memory of one iris service (PSS)",
        f"{used / MB:.0f} MB; the bare process {bare_used / MB:.0f} MB",
        "≤ 1.15 × the bare process",
        used <= 1.15 * bare_used,
    )
    yield from run.theirs.first_scores() if run.theirs else ()


def _image(bench: Bench) -> str:
    service = bench.service()
    return next(str(row["imageId"]) for row in bench.services().values() if row["id"] == service)


def _service_memory(bench: Bench, service_id: str) -> int:
    """Return the memory in bytes (PSS) of all supervised processes of the service."""
    wanted = service_id.replace("-", "")
    names = [line.split()[0] for line in bench.site.supervisorctl("status").splitlines() if wanted in line]
    assert names, f"no program runs for service {service_id}"
    return sum(pss_of_tree(int(bench.site.supervisorctl("pid", name))) for name in names)
