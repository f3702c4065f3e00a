"""Scores of any stereo film, from any converter, computed in one pass and constant memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from secondeye.conversion.provenance import has_synthesised_left, read_record
from secondeye.evaluation.aligned_reference import (
    Alignment,
    fit_alignment,
    prepare_aligned,
    sample_disparities,
)
from secondeye.evaluation.baselines import shift_left
from secondeye.evaluation.metric_state import MetricState
from secondeye.evaluation.regions import REGIONS, UNKNOWN, match_by_search
from secondeye.evaluation.score import compute, prepare, update
from secondeye.evaluation.score_crops import MIN_SIDE_PX
from secondeye.evaluation.view_streams import (
    LEFT,
    RIGHT,
    View,
    ViewImages,
    format_size,
    open_view,
    read_synchronized,
    require_same_format,
)
from secondeye.film.cuts import CUT_THRESHOLD, CUT_WIDTH_PX, find_cuts, shortest_shot_frames
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.metrics.stereo import largest_jump
from secondeye.system.errors import UserError

_WINDOW = 8  # new frames at a time
_FIT_EVERY = 4  # frames: strength and convergence of a film are fitted on one of so many
_MAX_FIT_FRAMES = 400  # of a long film: then on one of twice as many, and so on


@dataclass(frozen=True)
class AlignedScore:
    """Scores against the true right view at the strength and convergence of the scored one."""

    scale: float  # its disparity is scale * true + shift; NaN if that cannot be measured
    shift_percent: float  # of the width
    obstacle: str  # why it is compared with the true right view itself; "" if it could be aligned
    scores: dict[str, float]  # by column of evaluation.columns
    flat_scores: dict[str, float]  # of a film without depth at the same convergence


@dataclass(frozen=True)
class FilmScore:
    """The scores of a stereo film."""

    films: dict[str, str]  # left, right and, if given, truth: which view of which film
    size: tuple[int, int]  # height and width of a view, px
    fps: float
    frames: int
    scored_frames: int
    region_percent: dict[str, float]  # of the true right view; empty without it
    cuts: list[int]  # first frame of every shot but the first
    disparity_jump_percent: float  # of the width, the largest at a cut; NaN without cuts
    scores: dict[str, float]  # by column of evaluation.columns; NaN without anything to score
    is_half_shifted: bool  # a view is from `--views both`, and what it is compared with is not
    aligned: AlignedScore | None


@dataclass
class _FilmState:
    """What has been accumulated so far."""

    metrics: MetricState = field(default_factory=MetricState)
    aligned: MetricState = field(default_factory=MetricState)
    flat: MetricState = field(default_factory=MetricState)
    region_pixels: np.ndarray = field(default_factory=lambda: np.zeros(1 + len(REGIONS), np.int64))
    scored: list[int] = field(default_factory=list)  # frame numbers


def score_films(
    left: Path,
    right: Path,
    truth: Path | None,  # film with the true right view
    *,
    every: int = 1,  # score one window of eight frames out of this many
    align: bool = False,  # also score at the right view's own strength and convergence; needs the truth
    log: Callable[[str], None] = print,
) -> FilmScore:
    """Score a right view beside the left view, and against the true right view if given.

    If a film's name has a packing tag, only the needed view is cut out of its frames. Raises
    UnreadableFilm, TruncatedFilm, and UserError if the films do not show the same frames.
    """
    views = {"left": open_view(left, LEFT), "right": open_view(right, RIGHT)}
    if truth is not None:
        views["truth"] = open_view(truth, RIGHT)
    elif align:
        raise UserError("--align needs --truth: it fits strength and convergence to the true right eye")
    _require_scorable(views, log)
    info, state = views["left"].info, _FilmState()
    alignment = _fit_film(list(views.values())) if align else None
    with tqdm(total=info.frames or None, desc="scoring", unit="frame") as bar:
        thumbnails = _score_windows(list(views.values()), every, alignment, state, bar.update)
        cuts, frames = find_cuts(
            thumbnails, info.fps, threshold=CUT_THRESHOLD, min_shot_frames=shortest_shot_frames(info.fps)
        )
    medians = np.full(frames, np.nan)
    medians[state.scored] = state.metrics.medians
    return FilmScore(
        films={name: str(view) for name, view in views.items()},
        size=views["left"].size,
        fps=round(float(info.fps), 3),
        frames=frames,
        scored_frames=len(state.scored),
        region_percent=_region_percent(state.region_pixels) if truth is not None else {},
        cuts=cuts,
        disparity_jump_percent=round(largest_jump(medians, cuts), 4),
        scores=compute(state.metrics),
        is_half_shifted=_is_half_shifted(views),
        aligned=None if alignment is None else _aligned_score(alignment, state, views["left"].size[1]),
    )


def _fit_film(views: Sequence[View]) -> Alignment:  # left, right, truth
    """Fit one scale and one shift to frames that are spread evenly over the film, in constant memory."""
    samples, step = list[np.ndarray](), _FIT_EVERY
    for number, images in enumerate(read_synchronized(views)):
        if number % step == 0:
            left, right, truth = (_to_frames([image]) for image in images)
            samples.append(sample_disparities(left, truth, right))
            if len(samples) > _MAX_FIT_FRAMES:
                samples, step = samples[::2], 2 * step
    return fit_alignment(np.concatenate(samples), views[LEFT].size[1])


def _aligned_score(alignment: Alignment, state: _FilmState, width: int) -> AlignedScore:
    return AlignedScore(
        round(alignment.scale, 4),
        round(100 * alignment.shift_px / width, 4),
        alignment.obstacle,
        compute(state.aligned),
        compute(state.flat),
    )


def _require_scorable(views: dict[str, View], log: Callable[[str], None]) -> None:
    """Log which view of each packed film is used. Raises UserError if the views cannot be scored together."""
    for name, view in views.items():
        if view.packing is not None:
            log(f"{name}: {view}")
    require_same_format(list(views.values()))
    left = views["left"]
    if min(left.size) < MIN_SIDE_PX:
        size = format_size(left.size)
        raise UserError(f"{left.info.path}: an eye is {size} px; both sides must be at least {MIN_SIDE_PX}")


def _is_half_shifted(views: dict[str, View]) -> bool:
    """Return whether a view is from `convert --views both` and what it is compared with is not."""
    left, right = (views[name].info.path for name in ("left", "right"))
    if not has_synthesised_left(left) and not has_synthesised_left(right):
        return False
    return "truth" in views or read_record(left) != read_record(right)


def _score_windows(
    views: Sequence[View],
    every: int,
    alignment: Alignment | None,
    state: _FilmState,
    advance: Callable[[int], object],
) -> Iterator[np.ndarray]:
    """Score window by window; yield thumbnails of the left view, in which cuts are detected."""
    start = 0
    for number, (window, overlap) in enumerate(_windows(read_synchronized(views))):
        if len(window) < 2:
            raise UserError(f"{views[LEFT].info.path}: has a single frame; scores need two")
        new = window[overlap:]
        if number % every == 0:
            _accumulate(state, window, overlap, alignment)
            state.scored += range(start, start + len(new))
        yield from (_thumbnail(images[LEFT]) for images in new)
        start += len(new)
        advance(len(new))


def _windows(images: Iterable[ViewImages]) -> Iterator[tuple[list[ViewImages], int]]:
    """Yield windows of up to eight new frames, and how many frames before them overlap the previous window.

    That is 0 for the first window and 1 for all others, which start with the previous window's last frame.
    """
    stream, last = iter(images), list[ViewImages]()
    while new := list(islice(stream, _WINDOW)):
        yield [*last, *new], len(last)
        last = new[-1:]


def _accumulate(
    state: _FilmState, window: Sequence[ViewImages], overlap: int, alignment: Alignment | None
) -> None:
    views = [_to_frames(view) for view in zip(*window, strict=True)]
    left, right = views[:2]
    truth = views[2] if len(views) == 3 else None
    match = None if truth is None else match_by_search(left, truth)
    regions = None if match is None else match.regions
    prepared = prepare(left, truth, regions)
    state.metrics += update(prepared, right, overlap=overlap, learned=None)
    if regions is not None:
        new = regions[overlap:].numpy().ravel()
        state.region_pixels += np.bincount(new, minlength=len(state.region_pixels))
    if truth is not None and match is not None and alignment is not None:
        if not alignment.obstacle:
            prepared = prepare_aligned(left, truth, match.regions, match, alignment)
        flat = shift_left(left, round(alignment.median_px))
        state.aligned += update(prepared, right, overlap=overlap, learned=None)
        state.flat += update(prepared, flat, overlap=overlap, learned=None)


def _to_frames(images: Sequence[np.ndarray]) -> Tensor:  # [T, 3, H, W]
    return frames_from_uint8(torch.from_numpy(np.stack(images)))


def _thumbnail(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    columns = min(width, CUT_WIDTH_PX)
    size = (columns, max(2, round(height * columns / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _region_percent(pixels: np.ndarray) -> dict[str, float]:
    percent = 100 * pixels / pixels.sum()
    named = {**REGIONS, "unknown": UNKNOWN}
    return {name: round(float(percent[region]), 3) for name, region in named.items()}
