"""Convert every new film of a folder with the champion.

    python flows/conversion.py data/inbox data/outbox

Needs no Prefect server. NAME.* becomes NAME_sbs.mp4, or .mkv if mp4 cannot hold its sound. Films whose
output exists are skipped. Interrupted conversions resume on the next run.
"""

import sys
import time
from pathlib import Path

from commands import SECONDEYE, run_command, run_log
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.video.mux import can_hold_audio

CHAMPION = "models:/secondeye@champion"
STILL_S = 60  # a film that changed more recently may still be being copied


@task(cache_policy=NO_CACHE, task_run_name="convert {film.name}")
def convert(film: Path, outbox: Path) -> None:
    """Convert one film, in a separate process. Raises UserError if it fails."""
    log = run_log()
    output = outbox / f"{film.stem}_sbs{'.mp4' if can_hold_audio(film, '.mp4') else '.mkv'}"
    command = [*SECONDEYE, "convert", str(film), "--model", CHAMPION, "--output", str(output)]
    run_command(command, log)


@flow(log_prints=True)
def convert_folder(inbox: str, outbox: str) -> None:
    """Convert each film in the inbox that has no output in the outbox; a failure does not stop the others.

    Missing folders are created. Raises UserError at the end if any film failed.
    """
    films = new_films(Path(inbox), Path(outbox))
    print(f"{inbox}: {len(films)} films to convert")
    failures = [failure for film in films if (failure := _failure(film, Path(outbox)))]
    if failures:
        raise UserError(f"{len(failures)} of {len(films)} films failed: {'; '.join(failures)}")


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


def _failure(film: Path, outbox: Path) -> str:
    """Convert a film and return the error message, or ""."""
    try:
        convert(film, outbox)
    except UserError as failure:
        return f"{film.name}: {failure}"
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python flows/conversion.py INBOX OUTBOX")
    try:
        convert_folder(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"conversion: {error}")
