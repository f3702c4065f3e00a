"""Check a film that came back from another converter, and file its right view in data/external."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secondeye.conversion.provenance import has_synthesised_left
from secondeye.evaluation.external import shape_problem
from secondeye.evaluation.frame_timing import check_doubled, check_timing
from secondeye.evaluation.same_frames import (
    MAX_SHARE,
    difference_at,
    has_parallax,
    is_clearly_less,
    median_share,
    thumbnail,
)
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
from secondeye.video.read import container_and_frame_count, decode_film, header_seconds
from secondeye.video.write import write_lossless_film

RIGHT_ONLY = "right"  # a film of the right view alone
_NAME = re.compile(r"\w[\w .+-]*")
_SPAN = 240  # frames that are compared with the original's at the start, in the middle and at the end
_EQUAL, _ORIGINAL = 0.5, 1.0  # levels of 255: two views that differ less are the same, but for a codec
_SHARES = 24  # frames of the film that are compared regardless of parallax


class ReturnedFilm(NamedTuple):
    """A film that was checked, and what to file of it."""

    path: Path
    view: View  # the right one
    skip: int  # leading frames to leave out
    frames: int  # to write
    output: Path


class _Opened(NamedTuple):
    """The number of frames of a film, and thumbnails of its views in several spans of frames."""

    frames: int
    spans: list[list[np.ndarray]]  # of each span that is not empty, of each view: float32 [T, h, w] gray

    def view(self, index: int) -> np.ndarray:  # float32 [T, h, w]
        return np.concatenate([views[index] for views in self.spans])


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
    if not _NAME.fullmatch(method) or method.endswith(".dvc"):
        raise UserError(f"--method {method!r}: must be letters, digits, spaces and -_.+, without .dvc")
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
    starts = _span_starts(container_and_frame_count(film)[1] - skip)
    truth = _open(((frame.left,) for frame in read_stereo_frames(source)), starts)
    made = _open(_views(film, view), [start + skip for start in starts])
    pairs = zip(starts, made.spans, truth.spans, strict=False)
    spans = [(start, views, lefts[0]) for start, views, lefts in pairs]
    is_timed = check_timing(film, source.name, spans, skip)
    if made.frames - skip != truth.frames:
        _require_whole(film, view, made.frames)
        counts = f"has {pluralize(made.frames - skip, 'frame')}, {source.name} has {truth.frames}"
        raise UserError(f"{film}: {counts}; convert all of its frames, and only these")
    _check_pictures(film, source, view, truth, made)
    check_doubled(film, source.name, spans, skip)
    if not is_timed:
        log(
            f"{film}: its motion does not show whether frames are early or late by one; compare some "
            f"with those of {source.name}"
        )
    if view.packing is not None:
        _check_order(film, view.packing, truth, made, log)
    return ReturnedFilm(film, view, skip, truth.frames, output)


def _span_starts(frames: int) -> list[int]:
    """Return the first frames of the spans at the start, in the middle and at the end, without overlap."""
    if frames <= 3 * _SPAN:
        return list(range(0, max(frames, 1), _SPAN))
    return [0, (frames - _SPAN) // 2, frames - _SPAN]


def _require_whole(film: Path, view: View, frames: int) -> None:
    """Raise UserError if fewer frames decode than the film's header states."""
    stated = view.info.frames or round(header_seconds(film) * float(view.info.fps))
    if frames < stated - 1:
        counts = f"{frames} of the {pluralize(stated, 'frame')} in its header"
        raise UserError(f"{film}: is damaged: it has only {counts}; download it again")


def _check_pictures(film: Path, source: Source, view: View, truth: _Opened, made: _Opened) -> None:
    """Raise UserError if a view shows something else, or if the right view alone is the left one."""
    left = truth.view(0)
    step = max(1, len(left) // _SHARES)
    for index in range(len(made.spans[0])):
        share = median_share(list(made.view(index)[::step]), list(left[::step]))
        if share is not None and share > MAX_SHARE:
            raise UserError(
                f"{film}: does not show what {source.name} shows; name its original with --original, or "
                "download it again"
            )
    if view.packing is None and not has_parallax(made.view(0)[::step], left[::step]):
        raise UserError(
            f"{film}: is the left view of {source.name}, as it was uploaded; file the film that came back"
        )


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


def _open(frames: Iterator[tuple[np.ndarray, ...]], starts: Sequence[int]) -> _Opened:
    """Count the frames and keep thumbnails of the spans that start there."""
    spans: list[list[tuple[np.ndarray, ...]]] = [[] for _ in starts]
    count = 0
    for count, views in enumerate(frames, start=1):
        for start, kept in zip(starts, spans, strict=True):
            if start < count <= start + _SPAN:
                kept.append(tuple(thumbnail(view) for view in views))
    filled = [kept for kept in spans if kept]
    return _Opened(count, [[np.stack(view) for view in zip(*kept, strict=True)] for kept in filled])


def _check_order(film: Path, packing: str, truth: _Opened, made: _Opened, log: Callable[[str], None]) -> None:
    """Raise UserError if the original, a left view, is where the right view should be."""
    views = made.view(0), made.view(1)
    left, right = (difference_at(view, truth.view(0), 0) for view in views)
    if is_clearly_less(right, left):
        first = packing.removesuffix(RIGHT_FIRST) if packing.endswith(RIGHT_FIRST) else packing + RIGHT_FIRST
        raise UserError(
            f"{film}: its right eye is the original, so its eyes are swapped; use --packing {first}"
        )
    if difference_at(*views, 0) < _EQUAL:
        log(f"{film}: both eyes are the same; it has no depth")
    elif left > _ORIGINAL and not is_clearly_less(left, right):
        log(
            f"{film}: neither eye is the original; if both were synthesised, each is shifted by half, and "
            "only aligned scores are fair"
        )


def _write(film: ReturnedFilm) -> None:
    frames = islice(decode_film(film.path), film.skip, film.skip + film.frames)
    images = (film.view.extract(frame.rgb) for frame in frames)
    write_lossless_film(film.output, images, film.view.info.fps, film.view.pixel_aspect)
