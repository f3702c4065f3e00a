"""A stereo film as it is watched, whoever made it: scored in one pass and flat memory."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from secondeye.evaluation.columns import GROUPS, Column
from secondeye.evaluation.metric_state import MetricState
from secondeye.evaluation.regions import NAMES, UNKNOWN, regions_from_match
from secondeye.evaluation.score import compute, prepare, update
from secondeye.evaluation.score_crops import SMALLEST_PX
from secondeye.evaluation.view_streams import (
    LEFT,
    RIGHT,
    Eye,
    Pictures,
    by,
    open_eye,
    read_together,
    require_alike,
)
from secondeye.film.cuts import CUT_THRESHOLD, CUT_WIDTH_PX, find_cuts, shortest_shot_frames
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import Matcher, make_matcher
from secondeye.matching.flow_matcher import match_flow
from secondeye.metrics.stereo import largest_jump
from secondeye.system.errors import UserError

_WINDOW = 8  # new frames at a time
_TOLERANCE_PX = 1.0  # of the left-right check
# Where the truth's disparities are searched, all in % (ours).
_LARGEST = 18.0  # of the width, to both sides
_SLACK = 1.0  # of the width, beyond the range that the flow finds
_STRAYS = 0.2  # of the pixels, at either end of that range: wrong more often than not
_DIRECTIONS = {"more": "more is better", "less": "less is better", "one": "1 is best", "": ""}
_FLAT_PERCENT = 0.1  # of the width: a range of disparity below is no depth
_JUMP = Column("disparity_jump_percent", "disparity jump at cuts, % of width", "less", 2)


@dataclass(frozen=True)
class FilmScore:
    """What a film's two eyes came to."""

    films: dict[str, str]  # left, right and truth, where there is one: the eye that was taken
    size: tuple[int, int]  # height and width of an eye, px
    fps: float
    frames: int
    scored_frames: int
    region_percent: dict[str, float]  # of the true right eye; empty without it
    cuts: list[int]  # first frames of all shots but the first
    disparity_jump_percent: float  # of the width, the largest at a cut; NaN where there is none
    scores: dict[str, float]  # by the names of evaluation.columns; NaN where nothing was to score


@dataclass
class _Found:
    """What the pass has counted so far."""

    tally: MetricState = field(default_factory=MetricState)
    areas: np.ndarray = field(default_factory=lambda: np.zeros(1 + len(NAMES), np.int64))  # px of each region
    scored: list[int] = field(default_factory=list)  # numbers of the frames


def score_films(
    left: Path,
    right: Path,
    truth: Path | None,  # the true right eye
    *,
    every: int = 1,  # one window of eight frames in so many is scored
    say: Callable[[str], None] = print,
) -> FilmScore:
    """Score the right eye beside the left one, and against the true one where there is one.

    A film whose name has a packing tag gives the eye it is asked for. Raises UnreadableFilm, TruncatedFilm,
    and UserError where the films do not show the same frames.
    """
    eyes = {"left": open_eye(left, LEFT), "right": open_eye(right, RIGHT)}
    eyes |= {"truth": open_eye(truth, RIGHT)} if truth is not None else {}
    for name, eye in eyes.items():
        if eye.packing is not None:
            say(f"{name}: {eye}")
    require_alike(list(eyes.values()))
    if min(eyes["left"].size) < SMALLEST_PX:
        raise UserError(f"{left}: an eye is {by(eyes['left'].size)} px; both sides must be {SMALLEST_PX}")
    info, found = eyes["left"].info, _Found()
    with tqdm(total=info.frames or None, desc="scoring", unit="frame") as bar:
        pictures = _score(list(eyes.values()), every, found, bar.update)
        shortest = shortest_shot_frames(info.fps)
        cuts, frames = find_cuts(pictures, info.fps, threshold=CUT_THRESHOLD, min_shot_frames=shortest)
    medians = np.full(frames, np.nan)
    medians[found.scored] = found.tally.medians
    return FilmScore(
        films={name: str(eye) for name, eye in eyes.items()},
        size=eyes["left"].size,
        fps=round(float(info.fps), 3),
        frames=frames,
        scored_frames=len(found.scored),
        region_percent=_percent(found.areas) if truth is not None else {},
        cuts=cuts,
        disparity_jump_percent=round(largest_jump(medians, cuts), 4),
        scores=compute(found.tally),
    )


def _score(
    eyes: Sequence[Eye], every: int, found: _Found, advance: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """Score window by window; yields the left eye's pictures, small, for the search of cuts."""
    at = 0
    for number, (window, seen) in enumerate(_windows(read_together(eyes))):
        if len(window) < 2:
            raise UserError(f"{eyes[LEFT].info.path}: has one frame only; scores need two")
        new = window[seen:]
        if number % every == 0:
            _count(found, window, seen)
            found.scored += range(at, at + len(new))
        yield from (_small(pictures[LEFT]) for pictures in new)
        at += len(new)
        advance(len(new))


def _windows(pictures: Iterable[Pictures]) -> Iterator[tuple[list[Pictures], int]]:
    """Frames in groups, each led by the last one of the group before; and how many lead (0 or 1)."""
    stream, last = iter(pictures), list[Pictures]()
    while new := list(islice(stream, _WINDOW)):
        yield [*last, *new], len(last)
        last = new[-1:]


def _count(found: _Found, window: Sequence[Pictures], seen: int) -> None:
    films = [frames_from_uint8(torch.from_numpy(np.stack(eye))) for eye in zip(*window, strict=True)]
    left, right = films[:2]
    truth = films[2] if len(films) == 3 else None
    regions = None if truth is None else regions_of_window(left, truth)
    found.tally += update(prepare(left, truth, regions), right, seen=seen, learned=None)
    if regions is not None:
        found.areas += np.bincount(regions[seen:].numpy().ravel(), minlength=len(found.areas))


def regions_of_window(
    left: Tensor,  # [T, 3, H, W]
    truth: Tensor,  # [T, 3, H, W]
) -> Tensor:  # uint8 [T, 1, H, W]: evaluation.regions
    """Match the eyes of each frame in the range of disparities that the flow finds there."""
    pairs = zip(left.split(1), truth.split(1), strict=True)
    maps = [regions_from_match(_signed_matcher(*pair), *pair, tolerance_px=_TOLERANCE_PX) for pair in pairs]
    return torch.cat(maps)


def _signed_matcher(left: Tensor, right: Tensor) -> Matcher:
    """Blocks, also of what is behind the screen: the right view is moved to the left to match them."""
    far_px, near_px = _range(left, right)
    matcher = make_matcher("block", near_px - far_px)

    def match(left: Tensor, right: Tensor) -> Tensor:
        moved = F.pad(left, (-far_px, 0, 0, 0), "replicate"), F.pad(right, (0, -far_px, 0, 0), "replicate")
        return matcher(*moved)[..., -far_px:] + far_px

    return match


def _range(left: Tensor, right: Tensor) -> tuple[int, int]:
    """The least disparity of a frame, 0 at most, and the largest one, px."""
    percent = left.shape[-1] / 100
    disparity = match_flow(left, right).disparity
    found = disparity[~disparity.isnan()].numpy()
    ends = np.percentile(found, [_STRAYS, 100 - _STRAYS]) if found.size else np.zeros(2)
    far, near = np.clip(ends + np.array([-_SLACK, _SLACK]) * percent, -_LARGEST * percent, _LARGEST * percent)
    return min(0, math.floor(far)), max(0, math.ceil(near))


def _small(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    columns = min(width, CUT_WIDTH_PX)
    size = (columns, max(2, round(height * columns / width)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _percent(areas: np.ndarray) -> dict[str, float]:
    shares = 100 * areas / areas.sum()
    return {name: round(float(shares[region]), 3) for name, region in {**NAMES, "unknown": UNKNOWN}.items()}


def to_json(score: FilmScore) -> str:
    """One JSON object; null where nothing was to score."""
    plain = asdict(score)
    plain[_JUMP.name] = _or_none(score.disparity_jump_percent)
    plain["remarks"] = find_remarks(score)
    plain["scores"] = {name: _or_none(value) for name, value in score.scores.items()}
    return json.dumps(plain, indent=1, allow_nan=False)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def describe(score: FilmScore) -> str:
    """The scores in groups, a line each; what is left out, and why, comes last."""
    frames = f"{score.frames} frames, {score.scored_frames} of them scored, cuts: {len(score.cuts)}"
    head = [f"{by(score.size)} px, {score.fps:.3f} fps, {frames}"]
    if score.region_percent:
        shares = ", ".join(f"{name} {share:.2f} %" for name, share in score.region_percent.items())
        head.append(f"the true right eye: {shares}")
    head += find_remarks(score)
    parts, left_out = ["\n".join(head)], list[str]()
    values = score.scores | ({_JUMP.name: score.disparity_jump_percent} if score.cuts else {})
    for heading, group in (GROUPS | {"Comfort": (*GROUPS["Comfort"], _JUMP)}).items():
        columns = [column for column in group if column.name in values]
        told = [column for column in columns if not math.isnan(values[column.name])]
        if told:
            parts.append("\n".join([heading, *(_line(column, values[column.name]) for column in told)]))
        missing = [column.heading for column in columns if column not in told]
        left_out += missing if told else [heading] * bool(missing)
    if left_out:
        why = "nothing to score, or no weights" if "truth" in score.films else "no --truth"
        parts.append(f"left out ({why}): {'; '.join(left_out)}")
    return "\n\n".join(parts)


def find_remarks(score: FilmScore) -> list[str]:
    """What a reader should know before the numbers: mistakes that good numbers would hide."""
    far, near = score.scores["far_percent"], score.scores["near_percent"]
    remarks = []
    if near - far < _FLAT_PERCENT:
        remarks.append("beware: both eyes are nearly alike or merely moved, which most scores do not mind")
    elif near < -far and far < -_FLAT_PERCENT:
        remarks.append("beware: most lies behind the screen; are the eyes swapped?")
    if score.region_percent and math.isnan(score.scores["disparity_correlation"]):
        remarks.append("beware: the truth shows no depth against the left eye; is it the left eye?")
    return remarks


def _line(column: Column, value: float) -> str:
    return f"  {column.heading:<36}{value:>10.{column.digits}f}  {_DIRECTIONS[column.better]}".rstrip()
