"""What all benchmarks' command lines share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from secondeye.system.errors import UserError


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the description, a module's docstring, as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def existing(path: str) -> Path:
    """Convert the argument that names a file or folder; argparse reports in one line if it is missing."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{path} does not exist")
    return Path(path)


def run(main: Callable[[], None]) -> None:
    """Run a benchmark. A UserError is printed as one line on stderr; the exit code is 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
