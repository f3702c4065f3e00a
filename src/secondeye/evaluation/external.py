"""Films that were converted elsewhere, scored beside our own methods.

external/METHOD/FILM   has the name of the film in data/raw that it was made from; packing tags may differ.
                       A file without a packing tag contains only the right view.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.conversion.provenance import has_synthesised_left
from secondeye.dataset.corrections import apply_shift, apply_vertical, rectification_of
from secondeye.dataset.reader import DatasetClip
from secondeye.dataset.schema import Film
from secondeye.evaluation.view_streams import RIGHT, View, format_size, is_same_rate, open_view
from secondeye.film.packing import crop, crop_and_resize, strip_packing_tag
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.imaging.rectification import rectify
from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.read import ShotReader, decode_film

_ASPECT_TOLERANCE = 5e-3  # sides are rounded to even numbers; beyond it, the films are cropped differently
_SEPARATORS = "-_. "  # between the words of a file's name


class ExternalMethod(NamedTuple):
    """A folder of films that one method converted."""

    name: str  # of the folder
    films: dict[str, Path]  # by name without suffix and packing tag


def list_external(folder: Path) -> list[ExternalMethod]:
    """List the external methods by name; none if there is no such folder.

    Raises UserError for a file that is not a film or is misplaced, and for two films of one name.
    """
    methods = []
    for path in _visible_entries(folder) if folder.is_dir() else []:
        if not path.is_dir():
            raise UserError(
                f"{path}: films belong into a folder for each method; move it into one in {folder}, or away"
            )
        methods.append(ExternalMethod(path.name, _list_films(path)))
    return [method for method in methods if method.films]


def match_films(
    method: ExternalMethod,
    films: Sequence[Film],  # all of the dataset
) -> tuple[tuple[str, Path], ...]:  # Film.id and the film converted from it
    """Match converted films to the dataset's by name. Raises UserError if one does not fit."""
    pairs = []
    for name, path in method.films.items():
        originals = [film for film in films if strip_packing_tag(film.name) == name]
        if len(originals) != 1:
            problem = (
                f"both {originals[0].name} and {originals[1].name} are called {name} in data/raw"
                if originals
                else f"no film in data/raw is called {name}"
            )
            raise UserError(f"{path}: {problem}; rename it")
        _require_same_shape(open_view(path, RIGHT), originals[0])
        if has_synthesised_left(path):
            raise UserError(
                f"{path}: was converted with --views both, and its right view is shifted by half as much as "
                f"that of {originals[0].name}; convert with --views right"
            )
        frames = len(_timestamps(path, path.stat().st_mtime_ns))
        if frames != originals[0].frames:
            raise UserError(
                f"{path}: has {pluralize(frames, 'frame')}, {originals[0].name} has {originals[0].frames}; "
                "convert all of its frames"
            )
        pairs.append((originals[0].id, path))
    return tuple(pairs)


def read_external(
    film: Path,
    clip: DatasetClip,
) -> Tensor:  # [T, 3, H - |vertical_px|, W - |shift_px|], less if rectified
    """Read the right view of a clip from a converted film.

    Frames are cropped and resized as in the stage `split`, then shifted like the true right view. Raises
    UnreadableFilm, TruncatedFilm, and UserError if the film is too short or the original's views are swapped.
    """
    piece, original, correction = clip.clip, clip.film, clip.correction
    if correction.swapped:
        raise UserError(
            f"{film}: was made from {original.name}, whose eyes are swapped; add -right-first to its packing "
            "in sources.csv"
        )
    view, timestamps = open_view(film, RIGHT), _timestamps(film, film.stat().st_mtime_ns)
    if len(timestamps) < piece.stop:
        raise UserError(
            f"{film}: has {len(timestamps)} frames, clip {clip.id} needs {piece.stop}; convert all frames"
        )
    borders, aspect = _scaled_borders(view, original), view.pixel_aspect
    frames = ShotReader(film, timestamps).read(piece.start, piece.stop)
    cropped = (crop(view.extract(frame.rgb), *borders) for frame in frames)
    fitted = [crop_and_resize(frame, piece.height, piece.width, aspect) for frame in cropped]
    right = frames_from_uint8(torch.from_numpy(np.stack(fitted)))
    if rectification := rectification_of(correction):
        right, _ = rectify(right, right, rectification)  # as the left view that it was made from
    # A right view made from the left one needs no colour or vertical correction: crop to the common rows.
    cut, _ = apply_vertical(right, right, correction.vertical_px)
    return apply_shift(cut, cut, correction.shift_px)[1]


def _scaled_borders(view: View, original: Film) -> tuple[int, int, int, int]:
    """Scale the original's black borders (top, bottom, left, right) to the size of this view, px."""
    height, width = view.size
    down, across = height / original.height, width / original.width
    top, bottom = (round(border * down) for border in (original.crop_top, original.crop_bottom))
    left, right = (round(border * across) for border in (original.crop_left, original.crop_right))
    return top, bottom, left, right


def _visible_entries(folder: Path) -> list[Path]:
    """List a folder without hidden files and those of DVC."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix != ".dvc")


def _list_films(folder: Path) -> dict[str, Path]:
    films: dict[str, Path] = {}
    for path in _visible_entries(folder):
        if path.is_dir() or path.suffix.lower() not in FILM_SUFFIXES:
            raise UserError(f"{path}: not a film; only films may be in {folder}")
        name = strip_packing_tag(path.name)
        if name in films:
            raise UserError(f"{path} and {films[name]} are two films called {name}; remove one of them")
        films[name] = path
    return films


def shape_problem(
    view: View,
    original: str,  # name of the film that it was made from
    size: tuple[int, int],  # height and width of a view of that film, px
    pixel_aspect: float,
    fps: Fraction,
) -> str:
    """Return how a converted view differs in shape or rate from its original; "" if it does not."""
    aspect = float(Fraction(view.size[1], view.size[0]) * view.pixel_aspect)
    expected = size[1] / size[0] * pixel_aspect
    if abs(aspect - expected) > _ASPECT_TOLERANCE * expected:
        return (
            f"{view}: the aspect of {format_size(view.size)} px differs from the {format_size(size)} px of "
            f"an eye of {original}; convert it without cropping; if it has both eyes, tag its name, as _sbs"
        )
    if not is_same_rate(view.info.fps, fps):
        rates = f"has {float(view.info.fps):.3f} frames a second, {original} has {float(fps):.3f}"
        return f"{view}: {rates}; convert it at the same rate"
    return ""


def _require_same_shape(view: View, original: Film) -> None:
    size, fps = (original.height, original.width), Fraction(original.fps)
    if problem := shape_problem(view, original.name, size, original.pixel_aspect, fps):
        raise UserError(problem)


@lru_cache(maxsize=8)
def _timestamps(film: Path, modified_ns: int) -> list[int]:
    """Return the timestamps of a film's frames; cached while the file stays the same."""
    timestamps: list[int] = []
    for frame in decode_film(film, size=(2, 2)):
        if frame.lost_before:
            raise UserError(
                f"{film}: a picture before frame {len(timestamps)} does not decode; copy it again"
            )
        timestamps.append(frame.pts)
    return timestamps
