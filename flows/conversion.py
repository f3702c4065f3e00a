"""Convert every new film of a folder with the champion.

    python flows/conversion.py data/inbox data/outbox [--tiles auto|N] [--max-memory-gb X] ...

Needs no Prefect server. NAME.* becomes NAME_sbs.mp4, or .mkv if mp4 cannot hold its sound. A film is
converted again if it was replaced or its output deleted. One that fails in --attempts runs is moved to
INBOX/failed (inbox.py). Interrupted conversions resume on the next run. The other options are those of
`secondeye convert`; without them the champion's defaults apply.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
from commands import RETRY, SECONDEYE, CommandFailed, run_command, run_log
from inbox import Inbox, open_inbox
from notify import HOOKS
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from secondeye.cli import EXIT_TRUNCATED
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.write import write_film

CHAMPION = "models:/secondeye@champion"


@task(cache_policy=NO_CACHE, task_run_name="convert {film.name}", **RETRY)
def convert(film: Path, output: Path, options: list[str]) -> str:
    """Convert one film, in a separate process, and publish it to MLflow. Raises UserError if it fails.

    Returns a warning if the film is damaged and only the part before the damage was converted, else "".
    """
    log, began, warning = run_log(), time.monotonic(), ""
    try:
        run_command(_convert_command(film, output, options), log)
    except CommandFailed as failure:
        if failure.code != EXIT_TRUNCATED:
            raise
        warning = str(failure)
    record(output, log, f"--seconds={time.monotonic() - began:.1f}")
    return warning


def record(output: Path, log: Callable[[str], None], *options: str) -> None:
    """Publish a conversion to MLflow; if that fails, a line says so."""
    try:
        run_command([*SECONDEYE, "model", "record", str(output), *options], log)
    except CommandFailed as failure:  # the film is there
        log(f"{failure}; not in MLflow yet")


@flow(log_prints=True, flow_run_name="conversion: {inbox}", **HOOKS)
def convert_folder(
    inbox: str,
    outbox: str,
    strength_percent: float | None = None,
    convergence: float | None = None,
    tiles: int | str | None = None,
    steps: int | None = None,
    compile: bool = False,
    offload: bool = False,
    max_memory_gb: float | None = None,
    workers: int | str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    attempts: int = 3,
) -> None:
    """Convert each film in the inbox that is not converted; a failure does not stop the others.

    A film that fails in `attempts` runs is moved to INBOX/failed. The other parameters are options of
    `secondeye convert`. Missing folders are created; without a champion, the shipped model becomes it. Raises
    UserError at the end if any film failed.
    """
    options = command_options(
        strength_percent=strength_percent,
        convergence=convergence,
        tiles=tiles,
        steps=steps,
        compile=compile,
        offload=offload,
        max_memory_gb=max_memory_gb,
        workers=workers,
        crf=crf,
        preset=preset,
    )
    log = run_log()
    with open_inbox(Path(inbox), Path(outbox), log) as opened:
        films = opened.films()
        print(f"{inbox}: {pluralize(len(films), 'film')} to convert")
        for output in opened.recovered:
            record(output, log)
        if films:
            run_command([*SECONDEYE, "model", "init"], log)
        control = cache(partial(convert_control, options, log))
        convert_one = partial(_failure, opened, options=options, attempts=attempts, control=control)
        failures = [failure for film in films if (failure := convert_one(film))]
    if failures:
        raise UserError(f"{len(failures)} of {pluralize(len(films), 'film')} failed: {'; '.join(failures)}")


def command_options(**values: float | str | None) -> list[str]:
    """Return the command line options with these values: none for None and False, a flag for True."""
    options = []
    for name, value in values.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            options.append(flag if value is True else f"{flag}={value}")
    return options


def convert_control(options: list[str], log: Callable[[str], None]) -> str:
    """Convert a short generated film and return the error message, or "".

    If it fails as well, the reason is not the film of the inbox but the champion or this machine.
    """
    y, x = np.indices((128, 256))
    images = (((np.stack([x + 2 * t, y, x + y], -1) * 4) % 256).astype(np.uint8) for t in range(12))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "control.mp4"
        write_film(film, images, Fraction(24))
        output = film.with_stem("control_sbs")
        try:
            run_command(_convert_command(film, output, options), log)
        except CommandFailed as failure:
            return str(failure)
    return ""


def _convert_command(film: Path, output: Path, options: list[str]) -> list[str]:
    return [*SECONDEYE, "convert", str(film), "--model", CHAMPION, "--output", str(output), *options]


def _failure(inbox: Inbox, film: Path, options: list[str], attempts: int, control: Callable[[], str]) -> str:
    """Convert a film and return the error message, or ""."""
    try:
        output, exists = inbox.begin(film)
        warning = convert(film, output, [*options, *(["--overwrite"] if exists else [])])
    except UserError as failure:
        return inbox.fail(film, failure, attempts, control, ["--model", CHAMPION, *options])
    inbox.finish(film, output, warning)
    return ""


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert every new film of a folder with the champion")
    parser.add_argument("inbox")
    parser.add_argument("outbox")
    parser.add_argument("--strength-percent", type=float)
    parser.add_argument("--convergence", type=float)
    parser.add_argument("--tiles")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--max-memory-gb", type=float)
    parser.add_argument("--workers")
    parser.add_argument("--crf", type=int)
    parser.add_argument("--preset")
    parser.add_argument("--attempts", type=int, default=3, help="runs in which a film may fail (3)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        convert_folder(**vars(_parse_arguments()))
    except UserError as error:
        sys.exit(f"conversion: {error}")
