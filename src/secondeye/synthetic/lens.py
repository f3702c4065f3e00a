"""What a lens and a film make of a picture: defocus, vignette, tone, colour, grain."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # [H, W, 3] RGB
BLURS = (1.0, 2.0, 4.0)  # shares of the widest blur that are computed; between them pictures are mixed


@dataclass(frozen=True)
class Lens:
    """One lens, one film stock, one development: the same for both eyes and all frames of a shot."""

    key: float  # mean brightness after exposure
    gamma: float
    contrast: float
    cast: NDArray[np.float64]  # [3] gain of each colour
    saturation: float
    vignette: float  # loss of light in the corners
    noise: float  # standard deviation
    blur_px: (
        float  # standard deviation at the nearest or farthest point when focus is on the other, 0: all sharp
    )
    focus: float  # disparity in focus, share of the shot's range
    shutter: float  # share of the frame's time that it is open, 0: no motion blur


def draw_lens(rng: Generator, width: int) -> Lens:
    """Any lens; three quarters of the shots are sharp everywhere, two thirds have no motion blur."""
    return Lens(
        key=rng.uniform(0.25, 0.6),
        gamma=np.exp(rng.normal(0, 0.15)),
        contrast=rng.uniform(0.85, 1.25),
        cast=np.exp(rng.normal(0, 0.06, 3)),
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
    picture: Picture,
    brightness: float,  # mean of the shot's pictures
    relief: NDArray[np.float32],  # [H, W] disparity as a share of the shot's range
) -> Picture:  # in [0, 1]
    """The picture as it would have been filmed."""
    if lens.blur_px:
        picture = _defocused(picture, np.abs(relief - lens.focus), lens.blur_px)
    gain = lens.cast * lens.key / max(brightness, 0.02)
    picture = picture * gain.astype(np.float32) * _falloff(lens, *picture.shape[:2])
    grey = (picture[..., :1] + picture[..., 1:2] + picture[..., 2:]) / np.float32(3)
    picture = np.maximum(grey + lens.saturation * (picture - grey), 0) ** np.float32(lens.gamma)
    picture = (picture - lens.key) * lens.contrast + lens.key
    above = np.maximum(picture - 0.8, 0)
    picture = np.minimum(picture, 0.8) + above / (1 + 4 * above)  # highlights run into white softly
    grain = rng.standard_normal(picture.shape, np.float32) * np.float32(lens.noise)
    return np.clip(picture + grain, 0, 1).astype(np.float32)


def _falloff(lens: Lens, height: int, width: int) -> NDArray[np.float32]:
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    away = 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
    return (1 - lens.vignette * away).astype(np.float32)[..., None]


def _defocused(
    picture: Picture,
    away: NDArray[np.float32],  # [H, W] distance from the focus, share of the range
    blur_px: float,
) -> Picture:
    """A mixture of a few blurred pictures, chosen by a circle of confusion that is itself soft."""
    circle = cv2.GaussianBlur(np.clip(away, 0, 1), (0, 0), 0.5 * blur_px) * BLURS[-1]
    blurred = [picture] + [cv2.GaussianBlur(picture, (0, 0), blur_px * b / BLURS[-1]) for b in BLURS]
    edges = (0.0, *BLURS)
    mixed = picture
    for lower, upper, soft in zip(edges[:-1], edges[1:], blurred[1:], strict=True):
        share = np.clip((circle - lower) / (upper - lower), 0, 1)[..., None]
        mixed = mixed + share * (soft - mixed)
    return mixed
