"""The page of a two-alternative forced choice: which of two conversions of a moment is better (ours).

Each participant sees all pairs of methods at all moments. The answers are CSV, which `preferences` reads.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from secondeye.evaluation.external import shape_problem
from secondeye.evaluation.preferences import COLUMNS, MAX_NAME
from secondeye.evaluation.same_frames import (
    MAX_SHARE,
    difference_at,
    is_clearly_less,
    median_share,
    thumbnail,
)
from secondeye.evaluation.view_streams import LEFT, RIGHT, View, open_view, read_synchronized
from secondeye.film.layouts import anaglyph
from secondeye.film.packing import strip_packing_tag
from secondeye.report.choice_page import write_choice_page
from secondeye.sources import FILM_SUFFIXES
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.read import container_and_frame_count

WIGGLE, ANAGLYPH = "wiggle", "anaglyph"
SHOWS = (WIGGLE, ANAGLYPH)
PAGE_SUFFIXES = (".html", ".htm")
MAX_BYTES = 100 * 10**6  # of a page that browsers open at once
_WIGGLE_MS = 150  # that each eye is shown
_JPEG_QUALITY = 92


@dataclass
class _Images:
    """The images of a page as data URIs; equal ones are stored once."""

    uris: list[str] = field(default_factory=list)
    _known: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, image: np.ndarray) -> int:  # uint8 [H, W, 3] RGB
        """Return the index of an image. Raises UserError if the page becomes too large."""
        done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        assert done
        uri = f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"
        if uri not in self._known:
            self._known[uri] = len(self.uris)
            self.uris.append(uri)
            self.size_bytes += len(uri)
        if self.size_bytes > MAX_BYTES:
            raise UserError(
                f"the page would be larger than {MAX_BYTES // 10**6} MB; choose fewer --moments or --frames, "
                "or a smaller --width"
            )
        return self._known[uri]


def parse_methods(given: Sequence[str]) -> dict[str, Path]:
    """Return name -> path of arguments NAME=PATH. Raises UserError for others, and for a repeated name."""
    methods: dict[str, Path] = {}
    for argument in given:
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UserError(f"{argument}: must be NAME=FILM or NAME=FOLDER")
        if name in methods:
            raise UserError(f"{argument}: the name {name} is given twice")
        methods[name] = Path(path)
    return methods


def write_study(
    page: Path,
    methods: Mapping[str, Path],  # name -> a stereo film, or a folder of some
    *,
    show: str,  # one of SHOWS
    moments: int,  # of each film, evenly spread
    frames: int,  # of each moment
    width: int,  # px, of a view on the page
    seed: int,  # of the order of the trials, together with the participant's name
    overwrite: bool,  # replace an existing page
    log: Callable[[str], None],
) -> int:  # number of trials
    """Write the page.

    Raises UserError before the work for a page that cannot be written, and for methods without common films
    or films that differ in shape, rate, length or in what they show.
    """
    _check_page(page, overwrite)
    if show not in SHOWS:
        raise UserError(f"--show must be one of {', '.join(SHOWS)}, got {show!r}")
    for name in methods:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise UserError(f"{name!r}: a method's name must be 1 to {MAX_NAME} printable characters")
    if len(methods) < 2:
        raise UserError("a choice needs two methods; name them as NAME=FILM or NAME=FOLDER")
    images, shown, interval_ms = _Images(), list[dict[str, object]](), float(_WIGGLE_MS)
    for film, paths in _common_films(methods, log).items():
        views = {name: (_open(path, LEFT), _open(path, RIGHT)) for name, path in paths.items()}
        _require_same_shape([left for left, _ in views.values()])
        if show == ANAGLYPH:
            interval_ms = float(1000 / next(iter(views.values()))[0].info.fps)
        starts = _starts(list(paths.values()), moments, frames)
        shown += [
            {"film": film, "frame": start, "clips": clips}
            for start, clips in _read_moments(views, starts, frames, width, show, images)
        ]
    trials = [[index, *pair] for index in range(len(shown)) for pair in combinations(methods, 2)]
    digest = hashlib.sha256("".join([str(seed), *methods, *images.uris]).encode()).hexdigest()[:12]
    content = {
        "study": digest,
        "seed": seed,
        "interval_ms": interval_ms,
        "columns": COLUMNS,
        "images": images.uris,
        "moments": shown,
        "trials": trials,
    }
    write_choice_page(page, content, glasses=show == ANAGLYPH)
    return len(trials)


def _check_page(page: Path, overwrite: bool) -> None:
    if page.suffix.lower() not in PAGE_SUFFIXES:
        raise UserError(f"{page}: the name of the page must end in {' or '.join(PAGE_SUFFIXES)}")
    if not page.parent.is_dir():
        raise UserError(f"{page.parent}: folder does not exist; create it first")
    if page.is_dir():
        raise UserError(f"{page}: is a folder; give the page another name")
    if page.exists() and not overwrite:
        raise UserError(f"{page}: already exists; give the page another name, or add --overwrite")


def _require_same_shape(views: Sequence[View]) -> None:
    """Raise UserError if the views differ in aspect or rate."""
    first = views[0]
    for view in views[1:]:
        name, aspect = first.info.path.name, float(first.pixel_aspect)
        if problem := shape_problem(view, name, first.size, aspect, first.info.fps):
            raise UserError(problem)


def _require_same_frames(views: Sequence[View], start: int, lefts: Sequence[Sequence[np.ndarray]]) -> None:
    """Raise UserError if the left views (thumbnails, of each film) of a moment show something else."""
    first = views[0].info.path
    for view, left in zip(views[1:], lefts[1:], strict=True):
        share = median_share(left, lefts[0])
        if share is not None and share > MAX_SHARE:
            raise UserError(
                f"{view.info.path}: its frames from {start} on do not show what those of {first} show; "
                "cut both alike"
            )
        stacks, reach = (np.stack(left), np.stack(lefts[0])), len(left) // 2
        lead = min(range(-reach, reach + 1), key=lambda lead: (difference_at(*stacks, lead), abs(lead)))
        if lead and is_clearly_less(difference_at(*stacks, lead), difference_at(*stacks, 0)):
            same = f"its frame {start + max(lead, 0)} is frame {start - min(lead, 0)} of {first}"
            raise UserError(f"{view.info.path}: {same}; cut both alike")


def _common_films(methods: Mapping[str, Path], log: Callable[[str], None]) -> dict[str, dict[str, Path]]:
    """Return film -> method -> file, of the films that all methods have; single files are one film."""
    if all(path.is_file() for path in methods.values()):
        return {strip_packing_tag(next(iter(methods.values())).name): dict(methods)}
    by_method = {name: _films_of(path) for name, path in methods.items()}
    first = next(iter(by_method.values()))
    common = [film for film in first if all(film in films for films in by_method.values())]
    others = sorted({film for films in by_method.values() for film in films} - set(common))
    if not common:
        raise UserError(f"{', '.join(map(str, methods.values()))}: have no film in common; name them alike")
    if others:
        log(f"left out, since not all methods have them: {', '.join(others)}")
    return {film: {name: films[film] for name, films in by_method.items()} for film in common}


def _films_of(path: Path) -> dict[str, Path]:
    if not path.exists():
        raise UserError(f"{path}: does not exist")
    files = sorted(path.glob("[!.]*")) if path.is_dir() else [path]
    return {strip_packing_tag(file.name): file for file in files if file.suffix.lower() in FILM_SUFFIXES}


def _open(path: Path, side: int) -> View:
    view = open_view(path, side)
    if view.packing is None:
        raise UserError(f"{path}: must hold both eyes; if it does, tag its name, as _sbs")
    return view


def _starts(paths: Sequence[Path], moments: int, frames: int) -> list[int]:
    """Return the first frame of each moment. Raises UserError if the films differ in length."""
    counts = [container_and_frame_count(path)[1] for path in paths]
    for path, count in zip(paths, counts, strict=True):
        if count != counts[0]:
            raise UserError(
                f"{path}: has {pluralize(count, 'frame')}, {paths[0]} has {counts[0]}; cut both alike"
            )
    if counts[0] < moments * frames:
        raise UserError(
            f"{paths[0]}: has {pluralize(counts[0], 'frame')}, too few for {pluralize(moments, 'moment')} of "
            f"{frames}"
        )
    step = counts[0] / moments
    return [int(step * index + (step - frames) / 2) for index in range(moments)]


def _read_moments(
    views: Mapping[str, tuple[View, View]],
    starts: Sequence[int],
    frames: int,
    width: int,
    show: str,
    images: _Images,
) -> Iterator[tuple[int, dict[str, list[int]]]]:
    """Yield each moment's first frame, and the images of each method in the order in which they are shown."""
    first = next(iter(views.values()))[0]
    aspect = first.size[1] / first.size[0] * float(first.pixel_aspect)
    size = (width, max(1, round(width / aspect)))
    flat = [view for pair in views.values() for view in pair]
    lefts: list[list[np.ndarray]] = [[] for _ in views]
    clips: dict[str, list[int]] = {name: [] for name in views}
    for number, pictures in enumerate(read_synchronized(flat)):
        start = next((start for start in starts if start <= number < start + frames), None)
        if start is None:
            continue
        small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
        for index, name in enumerate(views):
            left, right = small[2 * index : 2 * index + 2]
            lefts[index].append(thumbnail(left))
            shown = [left, right] if show == WIGGLE else [anaglyph(left, right)]
            clips[name] += [images.add(image) for image in shown]
        if number == start + frames - 1:
            _require_same_frames(flat[::2], start, lefts)
            yield start, clips
            lefts, clips = [[] for _ in views], {name: [] for name in views}
        if number == starts[-1] + frames - 1:
            return
