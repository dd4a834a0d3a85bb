"""The groups' shared state: the site, the sizes, and the peers to compare with."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.load import Result, percentile
from tests.bench.ours import Bench
from tests.bench.sizes import Sizes
from tests.bench.table import Row
from tests.bench.theirs import Theirs

MB = 1e6


@dataclass(frozen=True)
class Run:
    """One run of the benchmark."""

    bench: Bench
    sizes: Sizes
    theirs: Theirs | None = None

    def alternate(self, first: Callable[[], Result], second: Callable[[], Result]) -> list[tuple[Result, Result]]:
        """Measure both in turn, so that a busy moment of the machine concerns both."""
        return [(first(), second()) for _ in range(self.sizes.rounds)]


def against_mlflow(what: str, ours: Result, theirs: Result | None, ratio: float, *, p99_share: float = 0) -> Row:
    """Return a row that compares rates, and with `p99_share` the p99 latency, with MLflow's if it was measured."""
    seen = f"{ours.per_second:.0f} per second, p99 {ours.p99:.0f} ms"
    target = f"≥ {ratio:g} × MLflow" + (f", p99 ≤ {p99_share:g} of its" if p99_share else "")
    if ours.failed:
        return Row(what, f"{seen}; {ours.failed} of {ours.requests} requests failed", target, False)
    if theirs is None:
        return Row(what, seen, f"{target}; compared by `make bench-peers` only")
    times = ours.per_second / theirs.per_second
    seen += f"; {times:.1f} × MLflow ({theirs.per_second:.0f} per second, p99 {theirs.p99:.0f} ms)"
    reached = times >= ratio and (not p99_share or ours.p99 <= p99_share * theirs.p99)
    return Row(what, seen, target, reached)


def compared(
    what: str,
    pairs: list[tuple[Result, Result]],
    base: str,
    least: float,
    *,
    most_p99: float | None = None,
    longest_ms: float | None = None,
    more: str = "",
) -> Row:
    """Return a row with the rate of the second results as a share of the first, called `base`.

    `most_p99`: the highest ratio of their p99. `longest_ms`: the longest latency allowed in any second result. `more`:
    what to add to the figures.
    """
    share = statistics.median(second.per_second / first.per_second for first, second in pairs)
    rates = [statistics.median(pair[index].per_second for pair in pairs) for index in (0, 1)]
    p99 = [statistics.median(pair[index].p99 for pair in pairs) for index in (0, 1)]
    p99_ratio = statistics.median(second.p99 / first.p99 for first, second in pairs)
    longest = max(second.longest for _, second in pairs)
    failed = sum(first.failed + second.failed for first, second in pairs)
    seen = f"{rates[1]:.0f} per second, {share:.2f} × {base} ({rates[0]:.0f}); p99 {p99[0]:.1f} → {p99[1]:.1f} ms"
    target, reached = f"≥ {least:g} × {base}", share >= least and not failed
    if most_p99:
        seen, target = f"{seen}, {p99_ratio:.1f} ×", f"{target}, p99 ≤ {most_p99:g} ×"
        reached = reached and p99_ratio <= most_p99
    if longest_ms:
        seen, target = f"{seen}; longest {longest:.0f} ms", f"{target}, none above {longest_ms:g} ms"
        reached = reached and longest <= longest_ms
    return Row(what, seen + more + (f"; {failed} failed" if failed else ""), target, reached)


def latency(what: str, milliseconds: list[float], limit: float, more: str = "") -> Row:
    """Return a row with the percentiles of latencies, whose p95 must not exceed `limit` milliseconds."""
    p95 = percentile(milliseconds, 0.95)
    seen = f"p95 {p95:.0f} ms, median {statistics.median(milliseconds):.0f} ms, n = {len(milliseconds)}{more}"
    return Row(what, seen, f"p95 ≤ {limit:g} ms", p95 <= limit)
