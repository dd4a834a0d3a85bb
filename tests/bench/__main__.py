"""Benchmarks: `make bench` for this project, `make bench-peers` to compare it with MLflow and BentoML in one run.

python -m tests.bench [--quick] [--peers FOLDER] [--keep FILE] [GROUP ...]
python -m tests.bench --write FILE PAGE
"""

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.bench import table
from tests.bench.groups import GROUPS, selected
from tests.bench.ours import Bench
from tests.bench.run import Run
from tests.bench.sizes import QUICK, Sizes
from tests.bench.table import Row
from tests.bench.theirs import Theirs
from tests.site import Site

TITLE = "Measured in one run"
QUICK_TITLE = "QUICK CHECK: sizes and durations are too small. These figures mean nothing"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.bench")
    arguments.add_argument("groups", nargs="*", help=f"parts of names of groups to run: {', '.join(GROUPS)}")
    arguments.add_argument("--quick", action="store_true", help="check the benchmark itself; its figures mean nothing")
    arguments.add_argument("--peers", type=Path, help="compare with MLflow and BentoML, installed in this folder")
    arguments.add_argument("--keep", type=Path, help="write the figures to this file as JSON")
    arguments.add_argument("--write", nargs=2, type=Path, metavar=("FILE", "PAGE"), help="put kept figures on a page")
    options = arguments.parse_args()
    try:
        if options.write:
            table.write_page(*options.write)
        else:
            measure_and_print(options, selected(options.groups))
    except ValueError as error:
        sys.exit(str(error))


def measure_and_print(options: argparse.Namespace, names: list[str]) -> None:
    """Measure the groups, and print each row when it is known and all of them at the end."""
    about, title = table.describe_machine(), QUICK_TITLE if options.quick else TITLE
    print(f"{title}\n{table.sentence(about)}", file=sys.stderr, flush=True)
    rows: list[Row] = []
    try:
        for row in measure(names, QUICK if options.quick else Sizes(), options.peers):
            verdict = table.VERDICT[row.reached].strip("*")
            print(f"{row.what}: {row.seen} (target: {row.target}) {verdict}", file=sys.stderr, flush=True)
            rows.append(row)
    finally:  # even after a failure
        print(f"{table.sentence(about)}\n\n{table.show(title, rows)}")
    if options.keep:
        table.keep(options.keep, about, rows, is_complete=names == list(GROUPS) and not options.quick)


def measure(names: list[str], sizes: Sizes, peers_folder: Path | None) -> Iterator[Row]:
    """Measure every row of the groups on a site of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # if this runs as root, services run as another user and must reach their images
        site = Site(Path(folder) / "data").start()
        try:
            run = Run(Bench(site), sizes, Theirs(peers_folder) if peers_folder else None)
            for name in names:
                started = time.monotonic()
                print(f"--- {name}", file=sys.stderr, flush=True)
                yield from _measure_group(name, run)
                print(f"    {name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        finally:
            site.stop(signal.SIGTERM)


def _measure_group(name: str, run: Run) -> Iterator[Row]:
    """Measure a group. If that fails, return a row with the error: a missing figure counts as missed."""
    try:
        yield from GROUPS[name](run)
    except Exception as error:  # the other groups are worth measuring
        traceback.print_exc()
        yield Row(f"group {name}", f"not measured: {type(error).__name__}", "measured", False)


if __name__ == "__main__":
    main()
