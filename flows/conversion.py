"""Convert every new film of a folder with the champion.

    python flows/conversion.py data/inbox data/outbox [--tiles auto|N] [--max-memory-gb X] ...

Needs no Prefect server. NAME.* becomes NAME_sbs.mp4, or .mkv if mp4 cannot hold its sound. Films whose
output exists are skipped. Interrupted conversions resume on the next run. The options are those of `secondeye
convert`; without them the champion's defaults apply.
"""

import argparse
import sys
import time
from pathlib import Path

from commands import RETRY, SECONDEYE, CommandFailed, run_command, run_log
from notify import HOOKS
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.mux import can_hold_audio

CHAMPION = "models:/secondeye@champion"
STILL_S = 60  # a film that changed more recently may still be being copied


@task(cache_policy=NO_CACHE, task_run_name="convert {film.name}", **RETRY)
def convert(film: Path, outbox: Path, options: list[str]) -> None:
    """Convert one film, in a separate process, and publish it to MLflow. Raises UserError if it fails."""
    log, began = run_log(), time.monotonic()
    output = outbox / f"{film.stem}_sbs{'.mp4' if can_hold_audio(film, '.mp4') else '.mkv'}"
    command = [*SECONDEYE, "convert", str(film), "--model", CHAMPION, "--output", str(output), *options]
    run_command(command, log)
    try:
        seconds = f"--seconds={time.monotonic() - began:.1f}"
        run_command([*SECONDEYE, "model", "record", str(output), seconds], log)
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
) -> None:
    """Convert each film in the inbox that has no output in the outbox; a failure does not stop the others.

    The other parameters are options of `secondeye convert`. Missing folders are created. Raises UserError at
    the end if any film failed.
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
    films = new_films(Path(inbox), Path(outbox))
    print(f"{inbox}: {pluralize(len(films), 'film')} to convert")
    failures = [failure for film in films if (failure := _failure(film, Path(outbox), options))]
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


def new_films(inbox: Path, outbox: Path) -> list[Path]:
    """Return the films in the inbox, by name, that are not being written and have no output in the outbox."""
    for folder in (inbox, outbox):
        folder.mkdir(parents=True, exist_ok=True)
    done = {path.stem for path in outbox.glob("[!.]*_sbs.*")}
    return [
        film
        for film in sorted(inbox.glob("[!.]*"))
        if film.suffix.lower() in FILM_SUFFIXES
        and f"{film.stem}_sbs" not in done
        and time.time() - film.stat().st_mtime > STILL_S
    ]


def _failure(film: Path, outbox: Path, options: list[str]) -> str:
    """Convert a film and return the error message, or ""."""
    try:
        convert(film, outbox, options)
    except UserError as failure:
        return f"{film.name}: {failure}"
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
    return parser.parse_args()


if __name__ == "__main__":
    try:
        convert_folder(**vars(_parse_arguments()))
    except UserError as error:
        sys.exit(f"conversion: {error}")
