"""Draw the views that the diffusion inpainter is trained on, at the size that its network works at."""

from collections.abc import Callable
from functools import partial

import numpy as np

from secondeye.imaging.arrays import resize, resize_disparity
from secondeye.inpaint.working_size import reduce_warped, working_size
from secondeye.params import TrainDiffusion
from secondeye.training.shot_crops import draw_views
from secondeye.training.shots import Planes
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize, quantize
from secondeye.training.windows import Windows, read_window

DrawShot = Callable[[int, np.random.Generator], StereoShot]  # as `Draw`; quantized


def min_size(settings: TrainDiffusion) -> tuple[int, int, int]:
    """Return the frames, height and width of a sample."""
    return settings.frames, settings.height, settings.width


def used_planes(settings: TrainDiffusion) -> Planes:
    """Return which planes of its shots the network's training uses."""
    return Planes(left=settings.method == "one_step", disparity=settings.border_hole_percent > 0)


class DrawViews:
    """Draws crops of windows of shots."""

    def __init__(
        self,
        pool: ShotPool,
        settings: TrainDiffusion,
        frames: int,
        area_px: int,  # of the images that the network was made for
        *,
        max_stride: int,
        seed: int,  # of the shots' order
    ) -> None:
        share = settings.mono_share
        self.windows = Windows(pool, frames, mono_share=share, seed=seed, max_stride=max_stride)
        self.height, self.width = settings.height, settings.width
        self.border_hole_percent = settings.border_hole_percent
        self.area_px = area_px

    def __call__(self, number: int, rng: np.random.Generator) -> StereoShot:  # quantized
        """Draw the views of a sample."""
        shot, frames = self.windows.draw(number, rng)
        size = training_size(shot.height, shot.width, self.height, self.width, self.area_px)
        window = read_window(shot, frames, partial(reduce_shot, height=size[0], width=size[1]))
        return draw_views(window, self.height, self.width, self.border_hole_percent, rng)


def training_size(
    height: int,  # px of a view
    width: int,
    crop_height: int,  # px of a sample
    crop_width: int,
    area_px: int,  # of the images that the network was made for
) -> tuple[int, int]:  # px
    """Return the size to reduce a view to: where the network takes a frame whole, as it inpaints, or larger.

    A reduced view is still as large as a sample, so that crops of the network's own size fit into views of
    any size.
    """
    reduced = working_size(height, width, 1, 1, area_px)
    scale = min(1.0, max(reduced[0] / height, reduced[1] / width, crop_height / height, crop_width / width))
    return max(crop_height, round(scale * height)), max(crop_width, round(scale * width))


def reduce_shot(
    shot: StereoShot,  # quantized
    *,
    height: int,
    width: int,
) -> StereoShot:  # quantized
    """Reduce a shot as the inpainter does."""
    if shot.left.shape[2:] == (height, width):
        return shot
    left, right, warped, coverage, disparity = dequantize(shot)
    small, holes = reduce_warped(warped, coverage, height, width)
    disparity = resize_disparity(disparity, height, width)
    left, right = resize(left, height, width), resize(right, height, width)
    return quantize(StereoShot(left, right, small, 1 - holes.float(), disparity))


def validation_rngs(seed: int, count: int) -> list[np.random.Generator]:
    """Return generators that the training loop does not use."""
    return [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(count)]
