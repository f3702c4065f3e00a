"""Where a conversion writes: check output and preview before any work starts."""

import tempfile
from pathlib import Path

from secondeye.system.errors import UserError
from secondeye.video.mux import plan_tracks

CONTAINERS = (".mp4", ".mov", ".mkv")


def default_output(film: Path) -> Path:
    """Return NAME_sbs beside the film, with the suffix of `default_suffix`."""
    return film.with_name(f"{film.stem}_sbs{default_suffix(film)}")


def default_suffix(film: Path) -> str:
    """Return .mp4, or .mkv if that holds more of the film's sound and subtitles."""
    return min((".mp4", ".mkv"), key=lambda suffix: plan_tracks(film, suffix).losses)


def check_output(output: Path, film: Path, overwrite: bool) -> None:
    """Raise UserError if the output cannot be written or exists."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give --output a file name")
    if output.suffix not in CONTAINERS:
        raise UserError(f"{output}: the name must end in {', '.join(CONTAINERS)}")
    _check_file(output, film, overwrite, "--output")


def check_preview(preview: Path, film: Path, overwrite: bool) -> None:
    """Raise UserError if the preview is not a .png that can be written."""
    if preview.suffix != ".png" or preview.is_dir():
        raise UserError(f"{preview}: the preview's name must end in .png")
    _check_file(preview, film, overwrite, "--preview")


def _check_file(path: Path, film: Path, overwrite: bool, option: str) -> None:
    if path.exists() and path.samefile(film):
        raise UserError(f"{path}: is the input film; give {option} another name")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; give {option} another name, or add --overwrite")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: folder does not exist")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written to ({error.strerror})") from error
