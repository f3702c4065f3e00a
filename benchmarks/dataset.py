"""How good the dataset build is: every table of it, one after the other.

    python benchmarks/dataset.py

Tables on real footage read the folder in SECONDEYE_FOOTAGE and are left out where it is unset. Throughput is
only true on an idle machine.
"""

from dataset_cuts import table as cuts
from dataset_matching import table as matching
from dataset_packings import table as packings
from dataset_real import table as real
from dataset_shift import table as shift
from dataset_throughput import table as throughput
from machine import machine

TABLES = {
    "Matching": matching,
    "Shift and corrections": shift,
    "Cuts": cuts,
    "Packings": packings,
    "Throughput": throughput,
    "Real footage": real,
}


def main() -> None:
    """Print the tables as they come."""
    print(machine(), flush=True)
    for heading, table in TABLES.items():
        print(f"\n### {heading}\n\n{table()}", flush=True)


if __name__ == "__main__":
    main()
