"""Films that others made of the held-out ones: rows of the evaluation beside our own methods.

external/MAKER/FILM       named as the film in data/raw, packing tags aside; without a tag it is the right eye
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.corrections import apply_shift, apply_vertical
from secondeye.dataset.schema import Clip, Correction, Film
from secondeye.dataset.tables import read_table
from secondeye.evaluation.eval_clips import Folders
from secondeye.evaluation.view_streams import RIGHT, Eye, by, open_eye, same_rate
from secondeye.film.packing import crop, fit, packing_from_name
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.video.read import ShotReader, read_pictures

_SAME_SHAPE = 5e-3  # sides are rounded to even numbers; at more, what is cropped is not the same
_BETWEEN = "-_. "  # parts the words of a file's name


class Maker(NamedTuple):
    """Who made films of ours."""

    name: str  # of the folder
    films: dict[str, Path]  # by their names without suffix and packing tag


def list_external(folder: Path) -> list[Maker]:
    """The makers in order of their names; none where there is no such folder.

    Raises Refusal for a file that is no film or lies at the wrong place, and for two films of one name.
    """
    makers = []
    for path in _shown(folder) if folder.is_dir() else []:
        if not path.is_dir():
            raise UserError(f"{path}: lies beside the makers' folders; move it into one of them, or away")
        makers.append(Maker(path.name, _films_in(path)))
    return [maker for maker in makers if maker.films]


def films_of(
    maker: Maker,
    films: Sequence[Film],  # all of the dataset
) -> tuple[tuple[str, Path], ...]:  # Film.id, and the file made of it
    """Which of our films these were made of. Raises UnreadableFilm, and Refusal where that can not be."""
    pairs = []
    for name, path in maker.films.items():
        ours = [film for film in films if plain_name(film.name) == name]
        if len(ours) != 1:
            found = f"both {ours[0].name} and {ours[1].name} are" if ours else "no film of the dataset is"
            raise UserError(f"{path}: {found} called {name} in data/raw; rename it")
        _require_shape(open_eye(path, RIGHT), ours[0])
        frames = len(_stamps(path, path.stat().st_mtime_ns))
        if frames != ours[0].frames:
            raise UserError(
                f"{path}: has {frames} frames, {ours[0].name} has {ours[0].frames}; give the same frames"
            )
        pairs.append((ours[0].id, path))
    return tuple(pairs)


def read_external(
    film: Path,
    folders: Folders,
    clip: str,
    frames: int,
) -> Tensor:  # [T, 3, H, W]: as HeldClip.right
    """The right eye of a held-out clip's first `frames` frames. Raises UserError if it is unreadable."""
    cut = next(row for row in read_table(folders.split / "clips.parquet", Clip) if row.id == clip)
    ours = next(row for row in read_table(folders.split / "films.parquet", Film) if row.id == cut.film)
    shifted = next(row for row in read_table(folders.shift / "shift.parquet", Correction) if row.id == clip)
    return read_right(film, ours, cut, shifted)[:frames]


def read_right(
    film: Path,
    ours: Film,  # that it was made of
    clip: Clip,
    shifted: Correction,
) -> Tensor:  # [T, 3, H - |vertical_px|, W - |shift_px|]
    """The right eye of a clip, cut out as the stage `split` did, and moved as `views` moves the true one."""
    if shifted.swapped:
        raise UserError(
            f"{film}: was made of {ours.name}, whose eyes are swapped; say so in sources.csv (its packing, "
            "and -right-first), so that the left eye is known for the left one"
        )
    eye, stamps = open_eye(film, RIGHT), _stamps(film, film.stat().st_mtime_ns)
    if len(stamps) < clip.stop:
        raise UserError(f"{film}: has {len(stamps)} frames, of which clip {clip.id} asks for {clip.stop}")
    borders, aspect = _borders(eye, ours), eye.pixel_aspect
    pictures = ShotReader(film, stamps).read(clip.start, clip.stop)
    cropped = (crop(eye.of(picture.rgb), *borders) for picture in pictures)
    fitted = [fit(picture, clip.height, clip.width, aspect) for picture in cropped]
    right = frames_from_uint8(torch.from_numpy(np.stack(fitted)))
    # Made of the left eye, it has that one's colours, and its rows.
    kept, _ = apply_vertical(right, right, shifted.vertical_px)
    return apply_shift(kept, kept, shifted.shift_px)[1]


def _borders(eye: Eye, ours: Film) -> tuple[int, int, int, int]:
    """What is cut off our film's eyes, in px of an eye made of them in whatever size."""
    height, width = eye.size
    down, across = height / ours.height, width / ours.width
    top, bottom = (round(border * down) for border in (ours.crop_top, ours.crop_bottom))
    left, right = (round(border * across) for border in (ours.crop_left, ours.crop_right))
    return top, bottom, left, right


def plain_name(file: str) -> str:
    """A film's name without suffix and packing tag: `candle_half-sbs.mp4` is `candle`."""
    stem = Path(file).stem
    packing = packing_from_name(stem)
    if packing is None:
        return stem
    words = re.finditer(f"[^{_BETWEEN}]+", stem)
    runs = [(first.start(), last.end()) for first, last in combinations_with_replacement(words, 2)]
    tags = [run for run in runs if packing_from_name(stem[slice(*run)]) == packing]
    start, stop = min(tags, key=lambda run: run[1] - run[0])  # `half-sbs`, not `candle_half-sbs`
    return (stem[:start].rstrip(_BETWEEN) + stem[stop:]).strip(_BETWEEN)


def _shown(folder: Path) -> list[Path]:
    """What lies in a folder, without what DVC and file managers leave there."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix != ".dvc")


def _films_in(folder: Path) -> dict[str, Path]:
    films: dict[str, Path] = {}
    for path in _shown(folder):
        if path.is_dir() or path.suffix.lower() not in FILM_SUFFIXES:
            raise UserError(f"{path}: is no film; only films lie in {folder}")
        name = plain_name(path.name)
        if name in films:
            raise UserError(f"{path} and {films[name]} are two films called {name}; remove one of them")
        films[name] = path
    return films


def _require_shape(made: Eye, ours: Film) -> None:
    here = float(Fraction(made.size[1], made.size[0]) * made.pixel_aspect)
    there = ours.width / ours.height * ours.pixel_aspect
    if abs(here - there) > _SAME_SHAPE * there:
        size = by((ours.height, ours.width))
        raise UserError(
            f"{made}: {by(made.size)} px is another shape than {size} px of an eye of {ours.name}; "
            "do not crop it, and tag a film of both eyes, as _sbs"
        )
    if not same_rate(made.info.fps, Fraction(ours.fps)):
        rates = f"{float(made.info.fps):.3f} frames a second, and {ours.fps:.3f} of {ours.name}"
        raise UserError(f"{made}: {rates}; make it of the same frames")


@lru_cache(maxsize=8)
def _stamps(film: Path, changed: int) -> list[int]:
    """The time stamps of a film's frames, found once a process as long as the file stays the same."""
    return [picture.pts for picture in read_pictures(film, size=(2, 2))]
