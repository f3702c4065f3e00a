"""Check a film that came back from another converter, and file its right view in data/external."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from secondeye.conversion.provenance import has_synthesised_left
from secondeye.evaluation.external import shape_problem
from secondeye.evaluation.view_streams import LEFT, RIGHT, View
from secondeye.film.packing import PACKED, RIGHT_FIRST, strip_packing_tag
from secondeye.sources import Source
from secondeye.sources.left_views import film_title
from secondeye.sources.packing_detection import stated_packing
from secondeye.sources.packing_from_pixels import axis_from_pixels
from secondeye.sources.views import read_stereo_frames, view_info
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_lossless_film

RIGHT_ONLY = "right"  # a film of the right view alone
_NAME = re.compile(r"\w[\w .+-]*")
_THUMBNAIL = (54, 96)  # height, width
_COMPARED = 240  # first frames that are compared with the original's
_LEAD = 60  # frames that a film may start late or early
_LEVELS, _SHARE = 0.5, 0.7  # one match is better than another by more than both: levels of 255, share


class ReturnedFilm(NamedTuple):
    """A film that was checked, and what to file of it."""

    path: Path
    view: View  # the right one
    skip: int  # leading frames to leave out
    frames: int  # to write
    output: Path


class _Opened(NamedTuple):
    """A film with the size and first thumbnails of its views."""

    frames: int
    thumbnails: list[np.ndarray]  # of each view: float32 [T, h, w] gray


def pack_films(
    films: Sequence[Path],
    sources: Sequence[Source],  # of data/raw
    folder: Path,  # data/external
    method: str,
    *,
    original: str | None,  # the film that all were made from; None: by their names
    packing: str | None,  # one of PACKED, or RIGHT_ONLY; None: as metadata, name or pixels say
    skip_frames: int,  # leading frames of each film that its original lacks
    log: Callable[[str], None],
) -> list[Path]:
    """Check all films, then write the right view of each as FOLDER/METHOD/TITLE.mkv, bit by bit.

    Raises UserError, with a line for each problem, before anything is written.
    """
    if not _NAME.fullmatch(method):
        raise UserError(f"--method {method!r}: must be letters, digits, spaces and -_.+")
    if packing not in (None, RIGHT_ONLY, *PACKED):
        raise UserError(f"--packing must be {RIGHT_ONLY} or one of {', '.join(PACKED)}, got {packing!r}")
    titles = {film_title(source): source for source in sources}
    checked, problems = list[ReturnedFilm](), list[str]()
    for film in films:
        try:
            title = _title(film, titles, original)
            checked.append(
                _check(film, titles[title], folder / method / f"{title}.mkv", packing, skip_frames, log)
            )
        except UserError as error:
            problems.append(str(error))
    outputs = [film.output for film in checked]
    problems += [
        f"{path}: two of the films would be filed there" for path in set(outputs) if outputs.count(path) > 1
    ]
    if problems:
        raise UserError("\n".join(problems))
    (folder / method).mkdir(parents=True, exist_ok=True)
    for returned in checked:
        _write(returned)
    return outputs


def _title(film: Path, titles: dict[str, Source], original: str | None) -> str:
    title = strip_packing_tag(original or film.name)
    if title not in titles:
        known = ", ".join(titles)
        raise UserError(
            f"{film}: no film in data/raw is called {title}; name its original with --original: {known}"
        )
    return title


def _check(
    film: Path, source: Source, output: Path, packing: str | None, skip: int, log: Callable[[str], None]
) -> ReturnedFilm:
    """Check one film. Raises UserError for the first problem."""
    for path in output.parent.glob("[!.]*"):
        if strip_packing_tag(path.name) == output.stem and path.suffix != ".dvc":
            raise UserError(f"{path}: exists already; delete it first")
    if has_synthesised_left(film):
        raise UserError(f"{film}: was converted with --views both; convert with --views right")
    info = view_info(source)
    aspect = float(info.pixel_aspect * info.width / info.height)
    found = packing or stated_packing(film) or _packing_from_pixels(film, aspect)
    view = View(probe(film), None if found == RIGHT_ONLY else found, RIGHT)
    size = info.height, info.width
    if problem := shape_problem(view, source.name, size, float(info.pixel_aspect), info.fps):
        raise UserError(problem)
    truth = _open((frame.left,) for frame in read_stereo_frames(source))
    made = _open(_views(film, view))
    _check_lead(film, source, truth, made, skip)
    if made.frames - skip != truth.frames:
        counts = f"has {pluralize(made.frames - skip, 'frame')}, {source.name} has {truth.frames}"
        raise UserError(f"{film}: {counts}; convert all of its frames, and only these")
    if view.packing is not None:
        _check_order(film, view.packing, truth, made, skip, log)
    return ReturnedFilm(film, view, skip, truth.frames, output)


def _packing_from_pixels(film: Path, aspect: float) -> str:
    """Return how a film without a tag is packed, by its halves and by the aspect of its original's views."""
    axis = axis_from_pixels(film)
    if not axis:
        return RIGHT_ONLY
    info = probe(film)
    whole = float(info.pixel_aspect * info.width / info.height)
    view = whole / 2 if axis == "sbs" else whole * 2
    return axis if abs(view / aspect - 1) < abs(whole / aspect - 1) else f"half-{axis}"


def _views(film: Path, right: View) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the views of each frame: left and right, or the right one alone. Raises UserError for damage."""
    views = [right] if right.packing is None else [right._replace(side=LEFT), right]
    for count, frame in enumerate(decode_film(film)):
        if frame.lost_before:
            raise UserError(f"{film}: a picture before frame {count} does not decode; download it again")
        yield tuple(view.extract(frame.rgb) for view in views)


def _open(frames: Iterator[tuple[np.ndarray, ...]]) -> _Opened:
    """Count the frames and keep thumbnails of the first ones."""
    first = [[_thumbnail(view) for view in views] for views in islice(frames, _COMPARED)]
    views = [np.stack(thumbnails) for thumbnails in zip(*first, strict=True)]
    return _Opened(len(first) + sum(1 for _ in frames), views)


def _thumbnail(view: np.ndarray) -> np.ndarray:  # float32 [h, w]
    small = cv2.resize(view, _THUMBNAIL[::-1], interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _difference(made: np.ndarray, truth: np.ndarray, skip: int) -> float:  # levels of 255
    """Return the mean difference of two views of which the first has so many more frames at its start."""
    made, truth = made[max(0, skip) :], truth[max(0, -skip) :]
    frames = min(len(made), len(truth))
    return float(np.abs(made[:frames] - truth[:frames]).mean()) if frames else np.inf


def _is_clearly_less(one: float, other: float) -> bool:
    return one < _SHARE * other and one < other - _LEVELS


def _check_lead(film: Path, source: Source, truth: _Opened, made: _Opened, skip: int) -> None:
    """Raise UserError if the film shows the original's frames earlier or later than it says."""

    def difference(lead: int) -> float:
        return min(_difference(view, truth.thumbnails[0], lead) for view in made.thumbnails)

    best = min(range(-_LEAD, _LEAD + 1), key=lambda lead: (difference(lead), abs(lead - skip)))
    if best != skip and _is_clearly_less(difference(best), difference(skip)):
        remedy = f"pack it with --skip-frames {best}" if best >= 0 else "convert all of its frames"
        raise UserError(
            f"{film}: its frame {max(best, 0)} is frame {max(-best, 0)} of {source.name}; {remedy}"
        )


def _check_order(
    film: Path, packing: str, truth: _Opened, made: _Opened, skip: int, log: Callable[[str], None]
) -> None:
    """Raise UserError if the original, a left view, is where the right view should be."""
    first_view, second_view = made.thumbnails
    left, right = (_difference(view, truth.thumbnails[0], skip) for view in made.thumbnails)
    if _is_clearly_less(right, left):
        first = packing.removesuffix(RIGHT_FIRST) if packing.endswith(RIGHT_FIRST) else packing + RIGHT_FIRST
        raise UserError(
            f"{film}: its right eye is the original, so its eyes are swapped; use --packing {first}"
        )
    if _difference(first_view, second_view, 0) < _LEVELS:
        log(f"{film}: both eyes are the same; it has no depth")
    elif left > 2 * _LEVELS and not _is_clearly_less(left, right):
        log(
            f"{film}: neither eye is the original; if both were synthesised, each is shifted by half, and "
            "only aligned scores are fair"
        )


def _write(film: ReturnedFilm) -> None:
    frames = islice(decode_film(film.path), film.skip, film.skip + film.frames)
    images = (film.view.extract(frame.rgb) for frame in frames)
    write_lossless_film(film.output, images, film.view.info.fps, film.view.pixel_aspect)
