"""Camera effects: defocus, vignette, tone, colour, grain."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]  # [H, W, 3] RGB
BLUR_LEVELS = (1.0, 2.0, 4.0)  # precomputed blurs relative to the widest; others are interpolated


@dataclass(frozen=True)
class Lens:
    """Lens, film stock and grading of a shot, the same for both views and all frames."""

    key: float  # mean brightness after exposure
    gamma: float
    contrast: float
    colour_gain: NDArray[np.float64]  # [3] per channel
    saturation: float
    vignette: float  # loss of light in the corners
    noise: float  # standard deviation
    blur_px: (
        float  # standard deviation at the nearest or farthest point when focus is on the other, 0: all sharp
    )
    focus: float  # disparity in focus, relative to the shot's range
    shutter: float  # share of the frame time that it is open, 0: no motion blur


def sample_lens(rng: Generator, width: int) -> Lens:
    """Sample a random lens; three quarters of the shots have no defocus, two thirds no motion blur."""
    return Lens(
        key=rng.uniform(0.25, 0.6),
        gamma=np.exp(rng.normal(0, 0.15)),
        contrast=rng.uniform(0.85, 1.25),
        colour_gain=np.exp(rng.normal(0, 0.06, 3)),
        saturation=rng.uniform(0.6, 1.3),
        vignette=rng.uniform(0, 0.35) * rng.integers(2),
        noise=rng.uniform(0, 0.018),
        blur_px=rng.uniform(0.6, 3) * width / 448 if rng.uniform() < 0.25 else 0.0,
        focus=rng.uniform(0, 1),
        shutter=rng.uniform(0.25, 0.6) if rng.uniform() < 0.35 else 0.0,
    )


def expose(
    lens: Lens,
    rng: Generator,
    image: Image,
    brightness: float,  # mean over the shot
    relative_disparity: NDArray[np.float32],  # [H, W] disparity relative to the shot's range
) -> Image:  # in [0, 1]
    """Apply all effects of the lens to a rendered image."""
    if lens.blur_px:
        image = _defocus(image, np.abs(relative_disparity - lens.focus), lens.blur_px)
    gain = lens.colour_gain * lens.key / max(brightness, 0.02)
    image = image * gain.astype(np.float32) * _vignette(lens, *image.shape[:2])
    gray = (image[..., :1] + image[..., 1:2] + image[..., 2:]) / np.float32(3)
    image = np.maximum(gray + lens.saturation * (image - gray), 0) ** np.float32(lens.gamma)
    image = (image - lens.key) * lens.contrast + lens.key
    above = np.maximum(image - 0.8, 0)
    image = np.minimum(image, 0.8) + above / (1 + 4 * above)  # soft roll-off of highlights
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(lens.noise)
    return np.clip(image + grain, 0, 1).astype(np.float32)


def _vignette(lens: Lens, height: int, width: int) -> NDArray[np.float32]:
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    focus_distance = 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
    return (1 - lens.vignette * focus_distance).astype(np.float32)[..., None]


def _defocus(
    image: Image,
    focus_distance: NDArray[np.float32],  # [H, W] distance from the focus, relative to the range
    blur_px: float,
) -> Image:
    """Interpolate between precomputed blurs, by a smoothed circle of confusion."""
    circle = cv2.GaussianBlur(np.clip(focus_distance, 0, 1), (0, 0), 0.5 * blur_px) * BLUR_LEVELS[-1]
    blurred = [image] + [cv2.GaussianBlur(image, (0, 0), blur_px * b / BLUR_LEVELS[-1]) for b in BLUR_LEVELS]
    edges = (0.0, *BLUR_LEVELS)
    mixed = image
    for lower, upper, soft in zip(edges[:-1], edges[1:], blurred[1:], strict=True):
        share = np.clip((circle - lower) / (upper - lower), 0, 1)[..., None]
        mixed = mixed + share * (soft - mixed)
    return mixed
