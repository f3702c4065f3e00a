"""Convert every new film of a folder with the champion.

    python flows/conversion.py data/inbox data/outbox

Needs no Prefect server. NAME.* becomes NAME_sbs.mp4, or .mkv where mp4 can not hold its sound; a film whose
output is there is done. What was broken off is continued next time.
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
STILL_S = 60  # a film that changed later than this ago may still be being copied


@task(cache_policy=NO_CACHE, task_run_name="convert {film.name}")
def convert(film: Path, outbox: Path) -> None:
    """Convert one film, in a process of its own. Raises Refusal when that fails."""
    log = run_log()
    output = outbox / f"{film.stem}_sbs{'.mp4' if can_hold_audio(film, '.mp4') else '.mkv'}"
    command = [*SECONDEYE, "convert", str(film), "--model", CHAMPION, "--output", str(output)]
    run_command(command, log)


@flow(log_prints=True)
def convert_folder(inbox: str, outbox: str) -> None:
    """Convert each film of the inbox that the outbox lacks; one failure does not stop the others.

    Folders that are missing are made. Raises Refusal at the end when there was a failure.
    """
    films = new_films(Path(inbox), Path(outbox))
    print(f"{inbox}: {len(films)} films to convert")
    failures = [failure for film in films if (failure := _failure(film, Path(outbox)))]
    if failures:
        raise UserError(f"{len(failures)} of {len(films)} films failed: {'; '.join(failures)}")


def new_films(inbox: Path, outbox: Path) -> list[Path]:
    """Films of the inbox, in order of their names, that lie still and have no output in the outbox."""
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
    """Convert a film; why it failed, or nothing."""
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
    except UserError as refusal:
        sys.exit(f"conversion: {refusal}")
