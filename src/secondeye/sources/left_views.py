"""Write the left views of the films in data/raw, to have them converted elsewhere."""

from collections.abc import Sequence
from pathlib import Path

from secondeye.film.packing import strip_packing_tag
from secondeye.sources.listing import list_sources
from secondeye.sources.source import Source, is_still
from secondeye.sources.views import read_stereo_frames, view_info
from secondeye.system.errors import UserError
from secondeye.system.files import atomic_path
from secondeye.video.encoders import Encoding
from secondeye.video.write import FilmWriter

_CRF = 8  # of H.264: about 48 dB, so that a service gets what the dataset has


def film_title(source: Source) -> str:
    """Return the name under which conversions of a film are filed: without suffix and packing tag."""
    return strip_packing_tag(source.name)


def select_films(raw: Path, names: Sequence[str]) -> list[Source]:
    """Return the films of these names, as in the folder or without suffix and tag; all if none is given.

    Raises UserError for an unknown name, and as `list_sources` does.
    """
    sources = [source for source in list_sources(raw) if not is_still(source.paths[0])]
    known = {name: source for source in sources for name in (source.name, film_title(source))}
    for name in names:
        if name not in known:
            titles = ", ".join(film_title(source) for source in sources)
            raise UserError(f"{name}: no film of {raw} is called that; it has {titles}")
    return [known[name] for name in dict.fromkeys(names)] if names else sources


def write_left_views(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Write the left view of each film as FOLDER/TITLE.mp4, with its frames, timestamps and size.

    Raises UserError before the work if a file exists already, and if a film does not decode to its end.
    """
    outputs = [folder / f"{film_title(source)}.mp4" for source in sources]
    for output in outputs:
        if output.exists():
            raise UserError(f"{output}: exists already; delete it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for source, output in zip(sources, outputs, strict=True):
        _write_left_view(source, output)
    return outputs


def _write_left_view(source: Source, output: Path) -> None:
    info = view_info(source)
    odd = bool(info.height % 2 or info.width % 2)
    with (
        atomic_path(output) as part,
        FilmWriter(
            part,
            info.width,
            info.height,
            fps=info.fps,
            time_base=info.time_base,
            pixel_aspect=info.pixel_aspect,
            encoding=Encoding(crf=_CRF, full_chroma=odd),
        ) as writer,
    ):
        start: int | None = None
        for frame in read_stereo_frames(source):
            start = frame.pts if start is None else start
            writer.write(frame.left, frame.pts - start)
