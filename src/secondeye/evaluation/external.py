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

from secondeye.clips import frames_from_pictures
from secondeye.evaluation.clip import Folders
from secondeye.evaluation.eyes import RIGHT, Eye, by, open_eye, same_rate
from secondeye.packing import fit, packing_from_name
from secondeye.refusal import Refusal
from secondeye.rows import Clip, Film, Shifted
from secondeye.sources import FILMS
from secondeye.tables import read_table
from secondeye.video.probe import probe
from secondeye.video.read import ShotReader, read_pictures
from secondeye.views import apply_shift

_SAME_SHAPE = Fraction(5, 1000)  # sides are rounded to even numbers; at more, what is cropped is not the same
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
            raise Refusal(f"{path}: lies beside the makers' folders; move it into one of them, or away")
        makers.append(Maker(path.name, _films_in(path)))
    return [maker for maker in makers if maker.films]


def films_of(
    maker: Maker,
    raw: Path,
    films: Sequence[Film],  # all of the dataset
) -> tuple[tuple[str, Path], ...]:  # Film.id, and the file made of it
    """Which of our films these were made of. Raises BadFilm, and Refusal where that can not be."""
    pairs = []
    for name, path in maker.films.items():
        ours = [film for film in films if plain_name(film.name) == name]
        if len(ours) != 1:
            found = f"both {ours[0].name} and {ours[1].name} are" if ours else "no film of the dataset is"
            raise Refusal(f"{path}: {found} called {name} in {raw}; rename it")
        _require_shape(open_eye(path, RIGHT), Eye(probe(raw / ours[0].name), ours[0].packing, RIGHT))
        frames = len(_stamps(path, path.stat().st_mtime_ns))
        if frames != ours[0].frames:
            raise Refusal(
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
    """The right eye of a held-out clip's first `frames` frames. Raises BadFilm, FilmBroke, and Refusal."""
    cut = next(row for row in read_table(folders.split / "clips.parquet", Clip) if row.id == clip)
    shifted = next(row for row in read_table(folders.shift / "shift.parquet", Shifted) if row.id == clip)
    return read_right(film, cut, shifted)[:frames]


def read_right(film: Path, clip: Clip, shifted: Shifted) -> Tensor:  # [T, 3, H, W - |shift_px|]
    """The right eye of a clip, cut out as the stage `split` did, and moved as `views` moves the true one."""
    eye, stamps = open_eye(film, RIGHT), _stamps(film, film.stat().st_mtime_ns)
    if len(stamps) < clip.stop:
        raise Refusal(f"{film}: has {len(stamps)} frames, of which clip {clip.id} asks for {clip.stop}")
    pictures = ShotReader(film, stamps).read(clip.start, clip.stop)
    fitted = [fit(eye.of(picture.rgb), clip.height, clip.width, eye.pixel_aspect) for picture in pictures]
    right = frames_from_pictures(torch.from_numpy(np.stack(fitted)))
    return apply_shift(right, right, shifted.shift_px)[1]


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
        if path.is_dir() or path.suffix.lower() not in FILMS:
            raise Refusal(f"{path}: is no film; only films lie in {folder}")
        name = plain_name(path.name)
        if name in films:
            raise Refusal(f"{path} and {films[name]} are two films called {name}; remove one of them")
        films[name] = path
    return films


def _require_shape(made: Eye, ours: Eye) -> None:
    here, there = (Fraction(eye.size[1], eye.size[0]) * eye.pixel_aspect for eye in (made, ours))
    if abs(here - there) > _SAME_SHAPE * there:
        raise Refusal(
            f"{made}: {by(made.size)} px is another shape than {by(ours.size)} px of {ours}; "
            "do not crop it, and tag a film of both eyes, as _sbs"
        )
    if not same_rate(made.info.fps, ours.info.fps):
        rates = f"{float(made.info.fps):.3f} frames a second, and {float(ours.info.fps):.3f} of {ours}"
        raise Refusal(f"{made}: {rates}; make it of the same frames")


@lru_cache(maxsize=8)
def _stamps(film: Path, changed: int) -> list[int]:
    """The time stamps of a film's frames, found once a process as long as the file stays the same."""
    return [picture.pts for picture in read_pictures(film, size=(2, 2))]
