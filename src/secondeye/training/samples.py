"""Samples that inpainters learn from: random parts of scenes, likely with holes, in colours of their own."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.training.column_offsets import column_range, offset_range
from secondeye.training.scene import Scene, usable_frames

CANDIDATES = 6  # crops of which the one with most holes is taken
CANDIDATES_SHARE = 0.8  # of draws that choose; the others take any crop
LARGEST_HOLE = 0.05  # of a crop's width, that opens at its border beside what has the median disparity
GAIN = (0.85, 1.1)  # of each colour channel; black stays black, so holes stay holes


class SceneWindow(NamedTuple):
    """Where a sample lies: which scene, which part of it, and how its pictures are changed."""

    scene: int  # place in [*stereo, *mono]
    start: int  # first frame
    frames: int
    top: int  # px
    left: int  # px
    height: int  # px
    width: int  # px
    flipped: bool  # upside down; left to right would swap the eyes
    gain: tuple[float, float, float]  # of red, green and blue


def draw_scene(
    stereo: Sequence[Scene],  # stored
    mono: Sequence[Scene],  # stored
    mono_share: float,  # [0, 1] of the draws; where one kind is missing the other is taken
    height: int,  # px of the crop
    width: int,  # px
    frames: int,  # consecutive
    rng: np.random.Generator,
) -> Scene:  # float32 [frames, C, height, width]
    """A random part of a random scene, likely one with holes; depends on the generator alone.

    The first eye's part lies apart from the second's, so that holes open at either border. Raises ValueError
    when no scene is as large and as long as that.
    """
    window = draw_window(stereo, mono, mono_share, height, width, frames, rng)
    scene = [*stereo, *mono][window.scene]
    return cut_apart(scene, *draw_apart(scene, window, rng))


def draw_window(
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    mono_share: float,
    height: int,
    width: int,
    frames: int,
    rng: np.random.Generator,
) -> SceneWindow:
    """A part of both eyes' views; scenes are drawn as often as they have frames."""
    scenes = [*stereo, *mono]
    number = _draw_number(stereo, mono, mono_share, (frames, height, width), rng)
    coverage = scenes[number].coverage
    start = int(rng.integers(len(coverage) - frames + 1))
    wanted = CANDIDATES if rng.random() < CANDIDATES_SHARE else 1
    tops = rng.integers(coverage.shape[2] - height + 1, size=wanted)
    lefts = rng.integers(coverage.shape[3] - width + 1, size=wanted)
    last = coverage[start + frames - 1, 0].numpy()
    holes = [
        np.count_nonzero(last[top : top + height, left : left + width] < 128)
        for top, left in zip(tops, lefts, strict=True)
    ]
    best = int(np.argmax(holes))
    flipped = bool(rng.random() < 0.5)
    red, green, blue = (float(gain) for gain in rng.uniform(*GAIN, size=3))
    return SceneWindow(
        number, start, frames, int(tops[best]), int(lefts[best]), height, width, flipped, (red, green, blue)
    )


def draw_apart(
    scene: Scene,  # stored
    window: SceneWindow,
    rng: np.random.Generator,
) -> tuple[SceneWindow, int]:  # px
    """How far the first eye's part begins to the right of the second's, which moves if there is no room."""
    disparity = cut(scene.disparity, window)[cut(scene.coverage, window) > 0]
    middle = float(disparity.median()) if len(disparity) else 0.0
    room = scene.coverage.shape[-1] - window.width
    low, high = offset_range(middle, room, LARGEST_HOLE * window.width)
    offset = int(rng.integers(low, high + 1))
    first, last = column_range(offset, room)
    return window._replace(left=min(max(window.left, first), last)), offset


def cut_apart(
    scene: Scene,  # stored
    window: SceneWindow,  # of the second eye's view
    offset_px: int,
) -> Scene:  # float32 [frames, C, window.height, window.width]
    """What two eyes saw that were framed apart; what lies beside the first one's frame is a hole."""
    left = cut(scene.left, window._replace(left=window.left + offset_px))
    right, warped, coverage, disparity = (cut(plane, window) for plane in scene.planes[1:])
    disparity = disparity - offset_px
    source = torch.arange(window.width) + disparity  # column of the first eye's frame
    seen = (source >= -0.5) & (source < window.width - 0.5)
    coverage = coverage * seen
    return Scene(left, right, warped * seen, coverage, disparity * (coverage > 0), scene.film)


def cut(
    plane: Tensor,  # [T, C, H, W], a plane of the window's scene, stored
    window: SceneWindow,
) -> Tensor:  # float32 [frames, C, height, width]
    """The part of a plane that a window shows; pictures (three channels) in its colours."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    part = plane[window.start : window.start + window.frames, :, rows, columns]
    part = part.float() / 255 if part.dtype == torch.uint8 else part.float()
    part = part.flip(-2) if window.flipped else part
    if part.shape[1] == 3:
        part = (part * torch.tensor(window.gain).view(1, 3, 1, 1)).clamp(0, 1)
    return part.contiguous()


def _draw_number(
    stereo: Sequence[Scene],
    mono: Sequence[Scene],
    mono_share: float,
    least: tuple[int, int, int],  # frames, height, width
    rng: np.random.Generator,
) -> int:
    """Choose a scene that is large enough, as its place in [*stereo, *mono]."""
    weights = np.array([usable_frames(scene, least) for scene in (*stereo, *mono)], np.float64)
    if not weights.any():
        raise ValueError(
            f"no scene of {len(weights)} has {least[0]} frames of at least {least[2]}x{least[1]}"
        )
    if weights[: len(stereo)].any() and weights[len(stereo) :].any():
        weights[: len(stereo)] *= (1 - mono_share) / weights[: len(stereo)].sum()
        weights[len(stereo) :] *= mono_share / weights[len(stereo) :].sum()
    return int(rng.choice(len(weights), p=weights / weights.sum()))
