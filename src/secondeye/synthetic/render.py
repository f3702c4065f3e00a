"""From a seed to a shot: draw a scene, choose the distance of the eyes, cast rays, expose."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from secondeye.synthetic.assets import WHITE, make_assets, outline
from secondeye.synthetic.lens import Lens, draw_lens, expose
from secondeye.synthetic.raytrace import View, cast
from secondeye.synthetic.scene import Scene, appearance, eyes
from secondeye.synthetic.scene_generator import draw_scene
from secondeye.synthetic.shot import Shot

FRAMES_PER_SECOND = 24
SPAN_PERCENT = (1.0, 8.0)  # of the width: from the least to the largest disparity of a shot, about
DISOCCLUDED = (0.01, 0.075)  # wished share of the right view that the left does not see


@dataclass(frozen=True)
class _World:
    """A scene and everything needed to look at it."""

    scene: Scene
    surfaces: NDArray[np.void]  # [S] SURFACE
    textures: NDArray[np.uint8]
    silhouettes: NDArray[np.uint8]

    def views(
        self,
        seconds: float,
        height: int,
        width: int,
        baseline_m: float,
        screen_px: float = 0.0,
        jitter: tuple[float, float] = (0.0, 0.0),  # px, where in the pixel the rays pass: x, y
        pictures_only: bool = False,  # quicker: `hidden` means nothing
    ) -> tuple[View, View]:
        """What the left and the right eye see at one moment."""
        left, right, light = eyes(
            self.scene, self.surfaces, seconds, baseline_m, screen_px, height, width, jitter
        )
        look = (self.textures, self.silhouettes, light)
        reach_px = 0.0 if pictures_only else baseline_m * left.focal_px  # at 0 nothing hides anything
        return (
            cast(self.surfaces, left, right, *look, reach_px, height, width),
            cast(self.surfaces, right, left, *look, -reach_px, height, width),
        )


@dataclass(frozen=True)
class _Survey:
    """What is measured of a shot before it is rendered."""

    baseline_m: float
    farthest: float  # inverse depth
    nearest: float  # inverse depth, but for the last half percent of the pixels
    brightness: float  # mean


def render_shot(
    seed: int,
    frames: int,
    height: int,
    width: int,
    *,
    screen_px: int = 0,
) -> Shot:
    """Render shot `seed`: another number is another shot, the same number the same shot to the last bit.

    The right view is shifted by `screen_px`: every disparity is at least -screen_px, 0 with parallel axes.
    Raises ValueError for a negative seed or an empty shot.
    """
    if seed < 0 or min(frames, height, width) < 1:
        raise ValueError(f"need seed >= 0 and a size above 0, got {seed}, {[frames, height, width]}")
    scene_rng, clothes_rng, lens_rng, grain_rng = map(np.random.default_rng, SeedSequence(seed).spawn(4))
    world = _dressed(draw_scene(scene_rng, width / height), clothes_rng, width)
    lens = draw_lens(lens_rng, width)
    survey = _surveyed(world, scene_rng, frames, height, width)
    shown = []
    for index in range(frames):
        left, right = _filmed(world, lens, survey, index / FRAMES_PER_SECOND, height, width, screen_px)
        shown.append(_arrays(left, right, world, lens, survey, screen_px, grain_rng))
    return Shot(*(torch.from_numpy(np.stack(column)) for column in zip(*shown, strict=True)))


def _dressed(scene: Scene, rng: Generator, width: int) -> _World:
    """Textures are half as wide as the frame, rounded up to a power of two."""
    size = 2 ** min(max(math.ceil(math.log2(width / 2)), 5), 10)
    textures, silhouettes = make_assets(rng, size)
    return _World(scene, appearance(scene, WHITE, outline(rng, "disc")), textures, silhouettes)


def _surveyed(world: _World, rng: Generator, frames: int, height: int, width: int) -> _Survey:
    """Choose the baseline by what small pictures show: a random disparity range, then not too much hidden."""
    small = (max(1, height // 4), max(1, width // 4))
    moments = [k / FRAMES_PER_SECOND for k in sorted({0, frames // 2, frames - 1})]
    seen = [world.views(t, *small, 0.02)[0] for t in moments]
    nearness = np.stack([view.nearness for view in seen])
    low, high, top = float(nearness.min()), float(np.quantile(nearness, 0.995)), float(nearness.max())
    widest = SPAN_PERCENT[1] / 100 / (world.scene.camera.focal * max(top - low, 1e-6))
    wish = np.exp(rng.uniform(np.log(1.5 * SPAN_PERCENT[0]), np.log(SPAN_PERCENT[1])))
    baseline = min(wish / 100 / (world.scene.camera.focal * max(high - low, 1e-6)), widest)
    hidden = float(np.mean([world.views(t, *small, baseline)[1].hidden.mean() for t in moments]))
    fitting = np.clip(hidden, *DISOCCLUDED) / max(hidden, 1e-6)  # what is hidden grows with the baseline
    brightness = float(np.mean([view.picture.mean() for view in seen]))
    return _Survey(min(baseline * fitting, widest), low, high, brightness)


def _filmed(
    world: _World, lens: Lens, survey: _Survey, seconds: float, height: int, width: int, screen_px: int
) -> tuple[View, View]:
    """Both eyes' views at one moment; with an open shutter the pictures are means around it."""
    size = (height, width, survey.baseline_m, screen_px)
    middle = world.views(seconds, *size)
    if not lens.shutter:
        return middle
    apart = lens.shutter / FRAMES_PER_SECOND / 3
    early = world.views(seconds - apart, *size, (-0.25, 0.25), pictures_only=True)
    late = world.views(seconds + apart, *size, (0.25, -0.25), pictures_only=True)
    left, right = (
        view._replace(picture=(before.picture + view.picture + after.picture) / np.float32(3))
        for before, view, after in zip(early, middle, late, strict=True)
    )
    return left, right


def _arrays(
    left: View, right: View, world: _World, lens: Lens, survey: _Survey, screen_px: int, rng: Generator
) -> list[NDArray]:  # in the order of Shot, without T
    """The pictures exposed, inverse depth as pixels of disparity."""
    reach_px = survey.baseline_m * world.scene.camera.focal * left.picture.shape[1]
    pictures: list[NDArray] = []
    disparities: list[NDArray] = []
    hidden: list[NDArray] = []
    for view in (left, right):
        relief = (view.nearness - survey.farthest) / max(survey.nearest - survey.farthest, 1e-6)
        picture = expose(lens, rng, view.picture, survey.brightness, relief.astype(np.float32))
        pictures.append(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        disparities.append((view.nearness * reach_px - screen_px).astype(np.float32)[None])
        hidden.append(view.hidden[None])
    return pictures + disparities + hidden
