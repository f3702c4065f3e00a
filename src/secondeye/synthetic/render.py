"""Rendering of a shot from a seed: generate a scene, choose the baseline, ray-trace, apply the lens."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from secondeye.synthetic.assets import WHITE, make_assets, silhouette_index
from secondeye.synthetic.lens import Lens, expose, sample_lens
from secondeye.synthetic.raytrace import RenderedView, render_view
from secondeye.synthetic.scene import Scene, make_surfaces, stereo_geometry
from secondeye.synthetic.scene_generator import generate_scene
from secondeye.synthetic.shot import Shot

FRAMES_PER_SECOND = 24
SPAN_PERCENT = (1.0, 8.0)  # of the width: approximate disparity range of a shot
TARGET_DISOCCLUSION = (0.01, 0.075)  # share of the right view that is not in the left view


@dataclass(frozen=True)
class _RenderableScene:
    """A scene with its surfaces and assets."""

    scene: Scene
    surfaces: NDArray[np.void]  # [S] SURFACE
    textures: NDArray[np.uint8]
    silhouettes: NDArray[np.uint8]

    def render(
        self,
        seconds: float,
        height: int,
        width: int,
        baseline_m: float,
        screen_px: float = 0.0,
        jitter: tuple[float, float] = (0.0, 0.0),  # px, sub-pixel offset of the rays: x, y
        images_only: bool = False,  # faster; `occluded` is meaningless
    ) -> tuple[RenderedView, RenderedView]:
        """Render the left and the right view at one moment."""
        left, right, light = stereo_geometry(
            self.scene, self.surfaces, seconds, baseline_m, screen_px, height, width, jitter
        )
        lighting = (self.textures, self.silhouettes, light)
        disparity_scale = 0.0 if images_only else baseline_m * left.focal_px  # 0 disables occlusion tests
        return (
            render_view(self.surfaces, left, right, *lighting, disparity_scale, height, width),
            render_view(self.surfaces, right, left, *lighting, -disparity_scale, height, width),
        )


@dataclass(frozen=True)
class _ShotSettings:
    """Baseline, depth range and brightness of a shot, measured on small renderings."""

    baseline_m: float
    farthest: float  # inverse depth
    nearest: float  # inverse depth, 99.5th percentile
    brightness: float  # mean


def render_shot(
    seed: int,
    frames: int,
    height: int,
    width: int,
    *,
    screen_px: int = 0,
    edit: Callable[[Scene], Scene] | None = None,
) -> Shot:
    """Render shot `seed`; bit-identical for the same arguments.

    The right view is shifted by `screen_px`: every disparity is at least -screen_px; 0 means parallel axes.
    `edit` changes the random scene before it is rendered, for films with a known motion of camera and bodies.
    Raises ValueError for a negative seed or an empty shot.
    """
    if seed < 0 or min(frames, height, width) < 1:
        raise ValueError(f"seed must be >= 0 and the size positive, got {seed}, {[frames, height, width]}")
    scene_rng, asset_rng, lens_rng, grain_rng = map(np.random.default_rng, SeedSequence(seed).spawn(4))
    scene = generate_scene(scene_rng, width / height)
    renderable = _make_renderable(edit(scene) if edit else scene, asset_rng, width)
    lens = sample_lens(lens_rng, width)
    settings = _choose_settings(renderable, scene_rng, frames, height, width)
    frame_arrays = []
    for index in range(frames):
        left, right = _render_frame(
            renderable, lens, settings, index / FRAMES_PER_SECOND, height, width, screen_px
        )
        frame_arrays.append(_to_arrays(left, right, renderable, lens, settings, screen_px, grain_rng))
    return Shot(*(torch.from_numpy(np.stack(column)) for column in zip(*frame_arrays, strict=True)))


def _make_renderable(scene: Scene, rng: Generator, width: int) -> _RenderableScene:
    """Draw the assets; textures are half as wide as the frame, rounded up to a power of two."""
    size = 2 ** min(max(math.ceil(math.log2(width / 2)), 5), 10)
    textures, silhouettes = make_assets(rng, size)
    surfaces = make_surfaces(scene, WHITE, silhouette_index(rng, "disc"))
    return _RenderableScene(scene, surfaces, textures, silhouettes)


def _choose_settings(
    renderable: _RenderableScene, rng: Generator, frames: int, height: int, width: int
) -> _ShotSettings:
    """Choose the baseline on small renderings: a random disparity range, limited by the disoccluded share."""
    small = (max(1, height // 4), max(1, width // 4))
    moments = [k / FRAMES_PER_SECOND for k in sorted({0, frames // 2, frames - 1})]
    small_views = [renderable.render(t, *small, 0.02)[0] for t in moments]
    inverse_depth = np.stack([view.inverse_depth for view in small_views])
    far, near = float(inverse_depth.min()), float(np.quantile(inverse_depth, 0.995))
    nearest, focal = float(inverse_depth.max()), renderable.scene.camera.focal
    max_baseline = SPAN_PERCENT[1] / 100 / (focal * max(nearest - far, 1e-6))
    span_percent = np.exp(rng.uniform(np.log(1.5 * SPAN_PERCENT[0]), np.log(SPAN_PERCENT[1])))
    baseline = min(span_percent / 100 / (focal * max(near - far, 1e-6)), max_baseline)
    occluded = float(np.mean([renderable.render(t, *small, baseline)[1].occluded.mean() for t in moments]))
    # Disocclusion grows about linearly with the baseline.
    factor = np.clip(occluded, *TARGET_DISOCCLUSION) / max(occluded, 1e-6)
    brightness = float(np.mean([view.image.mean() for view in small_views]))
    return _ShotSettings(min(baseline * factor, max_baseline), far, near, brightness)


def _render_frame(
    renderable: _RenderableScene,
    lens: Lens,
    settings: _ShotSettings,
    seconds: float,
    height: int,
    width: int,
    screen_px: int,
) -> tuple[RenderedView, RenderedView]:
    """Render both views at one moment; with motion blur, average three moments of the exposure."""
    size = (height, width, settings.baseline_m, screen_px)
    middle = renderable.render(seconds, *size)
    if not lens.shutter:
        return middle
    offset = lens.shutter / FRAMES_PER_SECOND / 3
    early = renderable.render(seconds - offset, *size, (-0.25, 0.25), images_only=True)
    late = renderable.render(seconds + offset, *size, (0.25, -0.25), images_only=True)
    left, right = (
        view._replace(image=(before.image + view.image + after.image) / np.float32(3))
        for before, view, after in zip(early, middle, late, strict=True)
    )
    return left, right


def _to_arrays(
    left: RenderedView,
    right: RenderedView,
    renderable: _RenderableScene,
    lens: Lens,
    settings: _ShotSettings,
    screen_px: int,
    rng: Generator,
) -> list[NDArray]:  # in the order of `Shot`, without T
    """Apply the lens and convert inverse depth to disparity in pixels."""
    disparity_scale = settings.baseline_m * renderable.scene.camera.focal * left.image.shape[1]
    images: list[NDArray] = []
    disparities: list[NDArray] = []
    occluded: list[NDArray] = []
    for view in (left, right):
        relative_disparity = (view.inverse_depth - settings.farthest) / max(
            settings.nearest - settings.farthest, 1e-6
        )
        image = expose(lens, rng, view.image, settings.brightness, relative_disparity.astype(np.float32))
        images.append(np.ascontiguousarray(image.transpose(2, 0, 1)))
        disparities.append((view.inverse_depth * disparity_scale - screen_px).astype(np.float32)[None])
        occluded.append(view.occluded[None])
    return images + disparities + occluded
