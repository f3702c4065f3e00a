"""Convert every new film of a folder with the champion.

    python flows/conversion.py data/inbox data/outbox [--tiles auto|N] [--max-memory-gb X] ...

Needs no Prefect server. NAME.* becomes NAME_LRF_Full_SBS.mp4, or .mkv if that holds more of its tracks, and
with another --layout NAME_TAG with the tag of that. A film is
converted again if it was replaced or its output deleted. One that fails in --attempts runs is moved to
INBOX/failed (inbox.py). Interrupted conversions resume on the next run. The other options are those of
`secondeye convert`; without them the champion's defaults apply.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
from commands import RETRY, SECONDEYE, CommandFailed, command_lines, rename_run, run_command, run_log
from inbox import Inbox, open_inbox
from notify import HOOKS, announce_champion
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from turn import turn

from secondeye.cli import EXIT_DAMAGED
from secondeye.film.layouts import Layout
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.write import write_film

CHAMPION = "models:/secondeye@champion"
_MAX_NAME = 200  # characters of the name of a run


@task(cache_policy=NO_CACHE, task_run_name="find the champion", **RETRY)
def find_champion() -> int:
    """Return the version of the champion; without one, the shipped model becomes it."""
    log, version = run_log(), 0
    for line in command_lines([*SECONDEYE, "model", "init"]):
        log(line)
        if found := re.match(r"champion: version (\d+)$", line):
            version = int(found[1])
    return version


@task(cache_policy=NO_CACHE, task_run_name="convert {film.name} with version {version}", **RETRY)
def convert(film: Path, output: Path, version: int, options: list[str], timeout_hours: float | None) -> str:
    """Convert one film, in a separate process. Raises UserError if it fails.

    Returns a warning if the film is damaged and only the part before the damage was converted, else "".
    """
    try:
        run_command(_convert_command(film, output, version, options), run_log(), timeout_hours)
    except CommandFailed as failure:
        if failure.code != EXIT_DAMAGED:
            raise
        return str(failure)
    return ""


@task(cache_policy=NO_CACHE, task_run_name="record {output.name}")
def record(output: Path, seconds: float | None = None) -> None:
    """Publish a conversion to MLflow, and show it as an artifact; if MLflow is away, a line says so."""
    log, run = run_log(), ""
    options = [] if seconds is None else [f"--seconds={seconds:.1f}"]
    try:
        for run in command_lines([*SECONDEYE, "model", "record", str(output), *options]):
            log(run)  # its name
    except CommandFailed as failure:  # the film is there
        run = "not in MLflow yet"
        log(f"{failure}; {run}")
    row = {
        "film": str(output),
        "MiB": round(output.stat().st_size / 2**20, 1),
        "seconds": "not measured" if seconds is None else round(seconds, 1),
        "run in MLflow": run,
    }
    key = f"film-{re.sub('[^a-z0-9]+', '-', output.stem.lower()).strip('-')}"
    create_table_artifact([row], key=key, description=str(output))


@flow(log_prints=True, flow_run_name="conversion: {inbox}", **HOOKS)
def convert_folder(
    inbox: str,
    outbox: str,
    strength_percent: float | None = None,
    convergence: float | None = None,
    views: str | None = None,
    tiles: int | str | None = None,
    steps: int | None = None,
    compile: bool = False,
    offload: bool = False,
    max_memory_gb: float | None = None,
    workers: int | str | None = None,
    deinterlace: str | None = None,
    input_layout: str | None = None,
    mono: bool = False,
    layout: str | None = None,
    first: str | None = None,
    no_stereo_tag: bool = False,
    codec: str | None = None,
    bit_depth: int | None = None,
    exact_size: bool = False,
    crf: int | None = None,
    preset: str | None = None,
    attempts: int = 3,
    timeout_hours: float | None = None,
    share_machine: bool = False,
) -> None:
    """Convert each film in the inbox that is not converted; a failure does not stop the others.

    A film that fails in `attempts` runs is moved to INBOX/failed. The timeout is for one film. With
    `share_machine`, films are converted beside a training and beside work started by hand. The other
    parameters are options of `secondeye convert`. Missing folders are created; without a champion, the
    shipped model becomes it. Raises UserError at the end if any film failed, and if there is no champion.
    """
    options = command_options(
        strength_percent=strength_percent,
        convergence=convergence,
        views=views,
        tiles=tiles,
        steps=steps,
        compile=compile,
        offload=offload,
        max_memory_gb=max_memory_gb,
        workers=workers,
        deinterlace=deinterlace,
        input_layout=input_layout,
        mono=mono,
        layout=layout,
        first=first,
        no_stereo_tag=no_stereo_tag,
        codec=codec,
        bit_depth=bit_depth,
        exact_size=exact_size,
        crf=crf,
        preset=preset,
    )
    log = run_log()
    stored = Layout(layout or "sbs", first or "left")
    if stored.files > 1:
        raise UserError(f"--layout {layout}: makes two files of a film; choose one that makes one")
    with open_inbox(Path(inbox), Path(outbox), log, stored, codec or "h264") as opened:
        films = opened.films()
        print(f"{inbox}: {pluralize(len(films), 'film')} to convert")
        for output in opened.recovered:
            record(output)
        if films:
            rename_run(f"conversion of {', '.join(film.name for film in films)}"[:_MAX_NAME])
        convert_one = partial(
            _convert_one,
            opened,
            options=options,
            attempts=attempts,
            timeout_hours=timeout_hours,
            share_machine=share_machine,
            control=cache(partial(convert_control, options)),
        )
        failures = [failure for film in films if (failure := convert_one(film))]
    announce_champion()
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


def convert_control(options: list[str], version: int) -> str:
    """Convert a short generated film and return the error message, or "".

    If it fails as well, the reason is not the film of the inbox but the model or this machine.
    """
    y, x = np.indices((128, 256))
    images = (((np.stack([x + 2 * t, y, x + y], -1) * 4) % 256).astype(np.uint8) for t in range(12))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "control.mp4"
        write_film(film, images, Fraction(24))
        output = film.with_name("control_out.mkv")  # holds every codec
        try:
            run_command(_convert_command(film, output, version, options), run_log())
        except CommandFailed as failure:
            return str(failure)
    return ""


def _convert_command(film: Path, output: Path, version: int, options: list[str]) -> list[str]:
    model = f"models:/secondeye/{version}"
    return [*SECONDEYE, "convert", str(film), "--model", model, "--output", str(output), *options]


def _convert_one(
    inbox: Inbox,
    film: Path,
    *,
    options: list[str],
    attempts: int,
    timeout_hours: float | None,
    share_machine: bool,
    control: Callable[[int], str],
) -> str:
    """Convert a film and return the error message, or ""."""
    # One turn for each film, so that a training that waits need not wait for all of them.
    with nullcontext() if share_machine else turn(run_log()):
        version, began = find_champion(), time.monotonic()
        try:
            output, exists = inbox.begin(film)
            replacing = ["--overwrite"] if exists else []
            warning = convert(film, output, version, [*options, *replacing], timeout_hours)
        except UserError as failure:
            by_hand = ["--model", CHAMPION, *options]
            return inbox.fail(film, failure, attempts, partial(control, version), by_hand)
        seconds = time.monotonic() - began
    record(output, seconds)
    inbox.finish(film, output, warning)
    return ""


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert every new film of a folder with the champion")
    parser.add_argument("inbox")
    parser.add_argument("outbox")
    parser.add_argument("--strength-percent", type=float)
    parser.add_argument("--convergence", type=float)
    parser.add_argument("--views")
    parser.add_argument("--tiles")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--max-memory-gb", type=float)
    parser.add_argument("--workers")
    parser.add_argument("--deinterlace")
    parser.add_argument("--input-layout")
    parser.add_argument("--mono", action="store_true")
    parser.add_argument("--layout")
    parser.add_argument("--first")
    parser.add_argument("--no-stereo-tag", action="store_true")
    parser.add_argument("--codec")
    parser.add_argument("--bit-depth", type=int)
    parser.add_argument("--exact-size", action="store_true")
    parser.add_argument("--crf", type=int)
    parser.add_argument("--preset")
    parser.add_argument("--attempts", type=int, default=3, help="runs in which a film may fail (3)")
    parser.add_argument("--timeout-hours", type=float, help="for one film")
    parser.add_argument("--share-machine", action="store_true", help="convert beside other work")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        convert_folder(**vars(_parse_arguments()))
    except UserError as error:
        sys.exit(f"conversion: {error}")
