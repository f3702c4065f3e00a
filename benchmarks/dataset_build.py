"""Print all tables about the dataset build.

    python benchmarks/dataset_build.py

Tables on real footage need the folder SECONDEYE_FOOTAGE and are omitted if it is unset. Throughput is only
meaningful on an idle machine.
"""

from collections.abc import Callable

from command import make_parser, run
from dataset_cuts import table as cuts
from dataset_matching import table as matching
from dataset_packings import table as packings
from dataset_real import table as real
from dataset_shift import table as shift
from dataset_throughput import table as throughput
from machine import machine

TABLES: dict[str, Callable[[], str]] = {
    "Matching": matching,
    "Shift and corrections": shift,
    "Cuts": cuts,
    "Packings": packings,
    "Throughput": throughput,
    "Real footage": real,
}


def main() -> None:
    """Print each table when it is done."""
    make_parser(__doc__).parse_args()
    print(machine(), flush=True)
    for heading, table in TABLES.items():
        print(f"\n### {heading}\n\n{table()}", flush=True)


if __name__ == "__main__":
    run(main)
