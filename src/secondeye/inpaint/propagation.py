"""Propagation: carry the background into holes from other frames of the shot that show it (ours).

The class of FuseFormer, E2FGVI and ProPainter without their networks: displacements are chained along
completed flow up to REACH_FRAMES before and after a frame, and holes take the mean of all frames in which
their background is visible, since their errors differ. What no frame shows is filled by `fill`.

A pixel is carried only if it was covered there, and if it and its neighbours have the disparity of the
background at the hole; and only if the background beside the hole, moved alike, looks the same in both
frames. Of no displacement, the chained one and the nearest by whole pixels, that at which it looks most alike
is taken: a standing background is carried exactly. Colours far from what `fill` makes of the background are
refused, unless the background varies that much: they are another surface at the same disparity.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from secondeye.inpaint.background_motion import Motion, follow, motion_between, search_px
from secondeye.inpaint.fill import FillState, fill, interleaved, same_surface_px
from secondeye.inpaint.interface import Inpainted, InpainterState, Warped

REACH_FRAMES = 12  # frames before and after a frame that are searched

_PIECE_PX = 16  # wider holes are moved in pieces, since their background may rotate or zoom
_SAME_COLOUR = 0.05  # mean difference of the background beside a hole, up to which it is the same
_BESIDE_COLUMNS, _BESIDE_ROWS = 4, 2  # pixels compared in a row; rows above and below; every second one
_MIN_COMPARED = 4  # pixels
_LIKELY_COLOUR, _LIKELY_DEVIATIONS = 0.1, 3.0  # mean difference from `fill`: a level, and standard deviations
_MARGIN_SHARE = 0.002  # of the width: beside a pixel within this distance there must be no other surface

_kernel = numba.njit(cache=True, nogil=True)


@dataclass
class PropagationStats:
    """How many pixels were in holes, and how many of them were carried from other frames."""

    hole_pixels: int = 0
    propagated: int = 0

    def __bool__(self) -> bool:
        return self.hole_pixels > 0

    @property
    def share(self) -> float:
        """The share of hole pixels that was carried from other frames, [0, 1]."""
        return self.propagated / max(1, self.hole_pixels)

    def __str__(self) -> str:
        return f"propagation: {100 * self.share:.0f} % of the pixels in holes come from other frames"


@dataclass
class _Frame:
    """A frame of the shot, filled, with its motion to its neighbours once that is known."""

    filled: FillState
    shown: np.ndarray  # [n, 3] of its holes' pixels, row by row: the warped view
    share: np.ndarray  # float32 [n], their coverage
    to_previous: Motion | None = None
    to_next: Motion | None = None


class Propagation:
    """An Inpainter that returns each frame when the REACH_FRAMES after it have arrived; counts what it does.

    Its state are the REACH_FRAMES last frames as `fill` left them. It runs on the CPU.
    """

    def __init__(self) -> None:
        self.stats = PropagationStats()

    def __call__(self, windows: Iterable[Warped], state: InpainterState | None = None) -> Iterator[Inpainted]:
        """Inpaint frame by frame; see Inpainter. Raises ValueError as `fill` does."""
        frames = [] if state is None else [_without_holes(filled) for filled in _read_state(state)]
        at = len(frames)  # of the next frame to return
        for warped in windows:
            device = warped.frames.device
            for t in range(len(warped.frames)):
                before = frames[-1].filled if frames else None
                frames.append(_fill(warped.take(slice(t, t + 1)).to("cpu"), before))
                if len(frames) - at > REACH_FRAMES:
                    yield self._inpaint(frames, at, device)
                    at = _drop_oldest(frames, at + 1)
            del warped  # or it would be kept while the next window is warped
        while at < len(frames):
            yield self._inpaint(frames, at, device)
            at = _drop_oldest(frames, at + 1)

    def _inpaint(self, frames: list[_Frame], at: int, device: torch.device) -> Inpainted:
        frame = frames[at]
        inpainted = frame.filled.frame
        if len(frame.share):
            carried, is_carried = _carry(frames, at)
            self.stats.hole_pixels += len(is_carried)
            self.stats.propagated += int(is_carried.sum())
            inpainted = _compose(frame, carried, is_carried)
        state = _write_state([known.filled for known in frames[: at + 1][-REACH_FRAMES:]])
        return Inpainted(inpainted[None].to(device), state)


def _fill(warped: Warped, before: FillState | None) -> _Frame:
    _, filled = fill(warped.frames, warped.coverage, warped.disparity, before)
    holes = ~filled.visible.numpy()
    return _Frame(filled, interleaved(warped.frames[0])[holes], warped.coverage[0, 0].numpy()[holes])


def _without_holes(filled: FillState) -> _Frame:
    """Return a frame that is inpainted already and only serves others."""
    return _Frame(filled, np.empty((0, 3)), np.empty(0))


def _drop_oldest(frames: list[_Frame], at: int) -> int:
    """Drop frames that are out of reach of frame `at`; return its new position."""
    excess = max(0, at - REACH_FRAMES)
    del frames[:excess]
    return at - excess


def _write_state(frames: list[FillState]) -> InpainterState:
    return {
        f"{number:02}.{name}": plane
        for number, frame in enumerate(frames)
        for name, plane in frame._asdict().items()
    }


def _read_state(state: InpainterState) -> list[FillState]:
    numbers = sorted({name.partition(".")[0] for name in state})
    return [FillState(*(state[f"{number}.{name}"] for name in FillState._fields)) for number in numbers]


def _compose(frame: _Frame, carried: np.ndarray, is_carried: np.ndarray) -> Tensor:
    """Return the filled frame with the pixels that were carried, by the share that is not covered."""
    composed = frame.filled.frame.clone()
    pixels, holes = interleaved(composed), ~frame.filled.visible.numpy()
    share = frame.share[is_carried, None]
    mixed = share * frame.shown[is_carried] + (1 - share) * carried[is_carried]
    inside = pixels[holes]
    inside[is_carried] = np.rint(mixed) if pixels.dtype == np.uint8 else mixed
    pixels[holes] = inside
    return composed


def _motion(frames: list[_Frame], at: int, direction: int) -> Motion | None:
    """Return the motion of a frame to the next (1) or previous one (-1)."""
    first, second = sorted((at, at + direction))
    if frames[first].to_next is None and (
        motion := motion_between(frames[first].filled, frames[second].filled)
    ):
        frames[first].to_next, frames[second].to_previous = motion
    return frames[at].to_next if direction == 1 else frames[at].to_previous


def _carry(frames: list[_Frame], at: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean colours [n, 3] of a frame's hole pixels in others, and which pixels were found [n]."""
    target = frames[at].filled
    visible, disparity, count = target.visible.numpy(), target.disparity.numpy(), len(frames[at].share)
    pieces = _cut_pieces(visible, disparity, count, _PIECE_PX)
    colours, samples = np.zeros((count, 3)), np.zeros(count, np.int32)
    surfaces = disparity[pieces[:, 0], pieces[:, 1]]
    points = np.stack([0.5 * (pieces[:, 1] + pieces[:, 2] - 1), pieces[:, 0]], 1).astype(np.float64)
    height, width = visible.shape
    levels = 255.0 if target.frame.dtype == torch.uint8 else 1.0
    margin = max(1, round(_MARGIN_SHARE * width))
    moved = {direction: np.zeros((len(pieces), 2)) for direction in (-1, 1)}
    lost = {direction: np.zeros(len(pieces), np.bool_) for direction in (-1, 1)}
    for away in range(1, REACH_FRAMES + 1):
        for direction in (-1, 1):
            there = at + away * direction
            if not 0 <= there < len(frames):
                continue
            motion = _motion(frames, there - direction, direction)
            if motion is None:
                continue
            follow(points, surfaces, moved[direction], lost[direction], motion, height, width)
            _fetch(
                pieces,
                moved[direction],
                lost[direction],
                *_planes(target),
                *_planes(frames[there].filled),
                same_surface_px(width),
                margin,
                search_px(width),
                levels,
                colours,
                samples,
            )
    return colours / np.maximum(samples, 1)[:, None], samples > 0


def _planes(filled: FillState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return interleaved(filled.frame), filled.visible.numpy(), filled.disparity.numpy()


@_kernel
def _cut_pieces(
    visible: np.ndarray,  # bool [H, W]
    disparity: np.ndarray,  # [H, W] px
    most: int,  # pixels that are not visible
    piece_px: int,
) -> np.ndarray:  # int32 [N, 6]: row, start, stop, column of the background beside, its side, pixels before
    """Cut the holes of every row into pieces; rows without a visible pixel have none."""
    height, width = visible.shape
    pieces = np.empty((most, 6), np.int32)
    count, pixels = 0, 0
    for y in range(height):
        x = 0
        while x < width:
            if visible[y, x]:
                x += 1
                continue
            start = x
            while x < width and not visible[y, x]:
                x += 1
            if start > 0 or x < width:
                from_left = x == width or (start > 0 and disparity[y, start - 1] <= disparity[y, x])
                beside, side = (start - 1, -1) if from_left else (x, 1)
                for first in range(start, x, piece_px):
                    pieces[count, 0], pieces[count, 1], pieces[count, 2] = y, first, min(first + piece_px, x)
                    pieces[count, 3], pieces[count, 4] = beside, side
                    pieces[count, 5] = pixels + first - start
                    count += 1
            pixels += x - start
    return pieces[:count].copy()


@_kernel
def _fetch(
    pieces: np.ndarray,  # [N, 6] from `_cut_pieces`
    moved: np.ndarray,  # [N, 2] px (x, y)
    lost: np.ndarray,  # bool [N]
    frame: np.ndarray,  # [H, W, 3]
    visible: np.ndarray,  # bool [H, W]
    disparity: np.ndarray,  # [H, W] px
    there: np.ndarray,  # [H, W, 3], the other frame
    there_visible: np.ndarray,
    there_disparity: np.ndarray,
    same_px: float,
    margin: int,  # px
    search: int,  # px
    levels: float,  # the largest value of a colour
    colours: np.ndarray,  # [n, 3], sums; updated
    samples: np.ndarray,  # [n], how many; updated
) -> None:
    """Add the colours of hole pixels that the other frame shows."""
    for n in range(len(pieces)):
        row, start, stop, beside, side, first = pieces[n]
        if lost[n]:
            continue
        background = disparity[row, start]
        move_x, move_y, difference, deviation = _best_move(
            row,
            beside,
            side,
            moved[n, 0],
            moved[n, 1],
            background,
            same_px,
            search,
            frame,
            visible,
            disparity,
            there,
            there_visible,
            there_disparity,
        )
        if difference > _SAME_COLOUR * levels:
            continue
        likely = _LIKELY_COLOUR * levels + _LIKELY_DEVIATIONS * deviation
        for x in range(start, stop):
            k = first + x - start
            there_y, there_x = row + move_y, x + move_x
            shows, red, green, blue = _sample(
                there, there_visible, there_disparity, there_y, there_x, background, same_px
            )
            column, line = int(np.rint(there_x)), int(np.rint(there_y))
            for i in (max(0, column - margin), min(frame.shape[1] - 1, column + margin)):
                shows = shows and abs(there_disparity[line, i] - background) <= same_px
            unlike = (
                abs(frame[row, x, 0] - red) + abs(frame[row, x, 1] - green) + abs(frame[row, x, 2] - blue)
            )
            if shows and unlike <= 3 * likely:
                colours[k, 0] += red
                colours[k, 1] += green
                colours[k, 2] += blue
                samples[k] += 1


@_kernel
def _best_move(
    row: int,
    beside: int,  # column of the background beside the hole
    side: int,  # 1 if it is to the right, -1 to the left
    moved_x: float,  # px, chained
    moved_y: float,
    background: float,  # px, its disparity
    same_px: float,
    search: int,  # px
    frame: np.ndarray,  # [H, W, 3]
    visible: np.ndarray,  # bool [H, W]
    disparity: np.ndarray,  # [H, W] px
    there: np.ndarray,  # [H, W, 3], the other frame
    there_visible: np.ndarray,
    there_disparity: np.ndarray,
) -> tuple[float, float, float, float]:
    """Return the displacement (x, y) at which the background beside a hole looks most alike in both frames.

    Also return the mean difference of its colours, inf if too few pixels are shown, and their deviation.
    """
    move_x, move_y, difference, deviation = 0.0, 0.0, np.inf, 0.0
    for by_x, by_y in ((0.0, 0.0), (np.rint(moved_x), np.rint(moved_y)), (moved_x, moved_y)):
        total, compared, colour, square = 0.0, 0, np.zeros(3), 0.0
        for y in range(row - _BESIDE_ROWS, row + _BESIDE_ROWS + 1, 2):
            in_row = 0
            for x in range(beside, beside + side * search, 2 * side):
                if in_row == _BESIDE_COLUMNS or not (0 <= y < len(frame) and 0 <= x < frame.shape[1]):
                    break
                if not visible[y, x] or abs(disparity[y, x] - background) > same_px:
                    continue
                shows, red, green, blue = _sample(
                    there, there_visible, there_disparity, y + by_y, x + by_x, background, same_px
                )
                if shows:
                    total += abs(frame[y, x, 0] - red) + abs(frame[y, x, 1] - green)
                    total += abs(frame[y, x, 2] - blue)
                    for c in range(3):
                        colour[c] += frame[y, x, c]
                        square += np.float64(frame[y, x, c]) ** 2
                    in_row += 1
            compared += in_row
        if compared >= _MIN_COMPARED and total / (3 * compared) < difference:
            difference, move_x, move_y = total / (3 * compared), by_x, by_y
            variance = square / (3 * compared) - (colour**2).sum() / (3 * compared**2)
            deviation = np.sqrt(max(0.0, variance))
    return move_x, move_y, difference, deviation


@_kernel
def _sample(
    frame: np.ndarray,  # [H, W, 3]
    visible: np.ndarray,  # bool [H, W]
    disparity: np.ndarray,  # [H, W] px
    y: float,
    x: float,
    background: float,  # px
    same_px: float,
) -> tuple[bool, float, float, float]:
    """Return whether a frame shows the background at a position, and its colour, interpolated bilinearly."""
    top, left = int(np.floor(y)), int(np.floor(x))
    v, u = y - top, x - left
    bottom, right = top + (v > 0), left + (u > 0)
    if top < 0 or left < 0 or bottom >= len(frame) or right >= frame.shape[1]:
        return False, 0.0, 0.0, 0.0
    red, green, blue = 0.0, 0.0, 0.0
    for j in range(top, bottom + 1):
        for i in range(left, right + 1):
            if not visible[j, i] or abs(disparity[j, i] - background) > same_px:
                return False, 0.0, 0.0, 0.0
            weight = (v if j > top else 1 - v) * (u if i > left else 1 - u)
            red += weight * frame[j, i, 0]
            green += weight * frame[j, i, 1]
            blue += weight * frame[j, i, 2]
    return True, red, green, blue
