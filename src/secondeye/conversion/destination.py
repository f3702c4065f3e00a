"""Where a conversion writes: check output and preview before any work starts."""

import tempfile
from pathlib import Path

from secondeye.conversion.settings import ConversionSettings
from secondeye.film.packing import strip_packing_tag
from secondeye.system.errors import UserError
from secondeye.video.mux import plan_tracks

CONTAINERS = (".mp4", ".mov", ".mkv")
_NOT_IN = {"av1": (".mov",), "ffv1": (".mp4", ".mov")}  # containers that cannot hold a codec


def choose_outputs(film: Path, output: Path | None, settings: ConversionSettings) -> list[Path]:
    """Return the files to write: the given one, or FILM_TAG beside the film, with a tag of the layout.

    The suffix is that of `default_suffix`. Two files get their tags also with a given name. Of a stereo film
    whose left view is converted, its own tag is left out. Raises UserError if the output is a folder.
    """
    layout = settings.output_layout
    if output is not None and output.is_dir():
        raise UserError(f"{output}: is a folder; give --output a file name")
    if output is not None and layout.files == 1:
        return [output]
    if output is None:
        stem = film.stem if settings.input_layout is None else strip_packing_tag(film.name) or film.stem
        output = film.with_name(f"{stem}{default_suffix(film, settings.encoding.encoder.codec)}")
    return [output.with_name(f"{name}{output.suffix}") for name in layout.names(output.stem)]


def default_suffix(
    film: Path,
    codec: str = "h264",  # that its container must hold: h264, hevc, av1 or ffv1
) -> str:
    """Return .mp4, or .mkv if that holds more of the film's sound and subtitles, or alone holds the codec."""
    suffixes = [suffix for suffix in (".mp4", ".mkv") if suffix not in _NOT_IN.get(codec, ())]
    return min(suffixes, key=lambda suffix: plan_tracks(film, suffix).losses)


def check_output(output: Path, film: Path, codec: str, overwrite: bool) -> None:
    """Raise UserError if the output cannot be written, cannot hold the codec, or exists."""
    if output.suffix not in CONTAINERS:
        raise UserError(f"{output}: the name must end in {', '.join(CONTAINERS)}")
    if output.suffix in _NOT_IN.get(codec, ()):
        raise UserError(f"{output}: {output.suffix} cannot hold {codec}; give --output a name in .mkv")
    _check_file(output, film, overwrite, "--output")


def check_preview(preview: Path, film: Path, overwrite: bool) -> None:
    """Raise UserError if the preview is not a .png that can be written."""
    if preview.suffix != ".png" or preview.is_dir():
        raise UserError(f"{preview}: the preview's name must end in .png")
    _check_file(preview, film, overwrite, "--preview")


def check_plan_file(plan: Path, film: Path) -> None:
    """Raise UserError if the name is not that of a YAML file, or a new one cannot be written."""
    if plan.is_dir():
        raise UserError(f"{plan}: is a folder; give --plan a file name")
    if plan.suffix not in (".yaml", ".yml"):
        raise UserError(f"{plan}: the name of --plan must end in .yaml")
    if not plan.exists():
        _check_file(plan, film, False, "--plan")


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
