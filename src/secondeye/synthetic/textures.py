"""Textures: 1/f noise, dead leaves, regular patterns, lines; and the mip pyramids the ray tracer samples."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.floating]  # [N, N]
Image = NDArray[np.floating]  # [N, N, 3] RGB in [0, 1]


def mip_pyramid(
    image: NDArray[np.floating],  # [N, N, C] in [0, 1], N a power of two
) -> NDArray[np.uint8]:  # [N, 2N, C]
    """Return the image and its halvings side by side: level l starts at column 2N - 2N / 2**l."""
    size, _, channels = image.shape
    atlas = np.zeros((size, 2 * size, channels), np.uint8)
    start, level = 0, image
    while size:
        atlas[:size, start : start + size] = np.rint(np.clip(level, 0, 1) * 255)
        start += size
        size //= 2
        if size:
            level = level.reshape(size, 2, size, 2, channels).mean((1, 3))
    return atlas


def noise(
    rng: Generator,
    size: int,
    slope: float,  # amplitude falls as 1 / frequency ** slope; 1 is natural, 0 is white
) -> Plane:
    """Return noise with a power-law spectrum, mean 0 and standard deviation 1; it tiles."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    field = np.fft.irfft2(spectrum, (size, size))
    return (field / field.std()).astype(np.float32)


def palette(
    rng: Generator,
    colours: int,
) -> NDArray[np.float32]:  # [colours, 3] RGB in [0, 1]
    """Return matching colours: hues around one or two values, mostly muted, of any lightness."""
    hue = (rng.choice(rng.uniform(0, 1, 2), colours) + rng.normal(0, 0.05, colours)) % 1
    saturation = rng.beta(1.5, 3, colours)
    value = rng.uniform(0.12, 0.95, colours)
    hsv = np.stack([hue * 360, saturation, value], -1).astype(np.float32)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]


def clouds(rng: Generator, size: int) -> Image:
    """Draw 1/f noise mapped to a palette."""
    colours = palette(rng, 4)
    position = 1.5 + noise(rng, size, rng.uniform(0.8, 1.6)) * rng.uniform(0.4, 1.0)
    position = np.clip(position, 0, 2.999)
    lower = position.astype(np.int64)
    part = (position - lower)[..., None]
    return colours[lower] * (1 - part) + colours[lower + 1] * part


def dead_leaves(rng: Generator, size: int) -> Image:
    """Draw the dead leaves model: opaque shapes over each other, with radii distributed as r ** -3."""
    colours = palette(rng, 12)
    image = _filled_image(colours[0], size)
    square = bool(rng.integers(2))
    radii = size * 0.012 * rng.uniform(0.001, 1, 900) ** -0.5
    for radius in np.minimum(radii, size * 0.3):
        colour = _bytes(colours[rng.integers(12)] + rng.normal(0, 0.06, 3))
        x, y = rng.uniform(0, size, 2)
        if square:
            box = cv2.boxPoints(((x, y), (2 * radius, radius * rng.uniform(0.5, 2)), rng.uniform(0, 180)))
            cv2.fillConvexPoly(image, np.rint(box * 16).astype(np.int32), colour, cv2.LINE_AA, 4)
        else:
            centre = (round(x * 16), round(y * 16))
            cv2.circle(image, centre, round(radius * 16), colour, -1, cv2.LINE_AA, 4)
    return image.astype(np.float32) / 255


def _filled_image(colour: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    return np.full((size, size, 3), _bytes(colour), np.uint8)


def _bytes(colour: NDArray[np.floating]) -> list[int]:
    return np.rint(np.clip(colour, 0, 1) * 255).astype(int).tolist()


def regular_pattern(rng: Generator, size: int) -> Image:
    """Draw a repeating pattern: stripes, checks, bricks, dots or a grid."""
    colours = palette(rng, 2)
    repeats = int(rng.integers(2, 14))
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size * repeats
    x, y = np.meshgrid(grid, grid)
    sharp = size / repeats / 2
    thin = rng.uniform(0.06, 0.25)
    match rng.integers(5):
        case 0:
            mask = _band(x if rng.integers(2) else y, rng.uniform(0.2, 0.6), sharp)
        case 1:
            mask = np.abs(_band(x, 0.5, sharp) - _band(y, 0.5, sharp))
        case 2:
            shifted = x + 0.5 * (np.floor(2 * y) % 2)
            mask = np.maximum(_band(shifted, thin, sharp), _band(2 * y, thin, sharp))
        case 3:
            distance = np.hypot(x % 1 - 0.5, y % 1 - 0.5)
            mask = np.clip((rng.uniform(0.15, 0.4) - distance) * sharp * 2 + 0.5, 0, 1)
        case _:
            mask = np.maximum(_band(x, thin, sharp), _band(y, thin, sharp))
    return colours[0] + (colours[1] - colours[0]) * mask[..., None]


def _band(
    position: Plane,  # in periods
    share: float,  # of the period that is 1
    sharp: float,  # px per period / 2
) -> Plane:
    distance = np.abs(position % 1 - 0.5)
    return np.clip((0.5 * share - distance) * sharp * 2 + 0.5, 0, 1).astype(np.float32)


def lines(rng: Generator, size: int) -> Image:
    """Draw thin lines, mostly in one direction, on a plain ground: cables, planks, cracks, writing."""
    colours = palette(rng, 4)
    image = _filled_image(colours[0], size)
    angle = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(8, 50))):
        heading = angle + rng.normal(0, 0.15)
        along = np.array([np.cos(heading), np.sin(heading)]) * size
        middle = rng.uniform(0, size, 2)
        ends = np.rint(np.stack([middle - along, middle + along]) * 16).astype(int).tolist()
        colour = _bytes(colours[rng.integers(1, 4)])
        cv2.line(image, ends[0], ends[1], colour, int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    return image.astype(np.float32) / 255


def nearly_plain(rng: Generator, size: int) -> Image:
    """Draw one colour with a trace of unevenness, on which stereo matchers fail."""
    colour = palette(rng, 1)[0]
    return colour * (1 + rng.uniform(0, 0.03) * noise(rng, size, 1.5)[..., None])


def sky(rng: Generator, size: int) -> Image:
    """Draw a sky from zenith (top) to horizon (middle), with or without clouds."""
    zenith = np.array([0.25, 0.45, 0.85]) * rng.uniform(0.5, 1.1) + rng.normal(0, 0.05, 3)
    horizon = np.array([0.85, 0.88, 0.92]) + rng.normal(0, 0.07, 3)
    height = np.clip(np.linspace(1, -1, size), 0, 1)[:, None, None]
    image = horizon + (zenith - horizon) * height ** rng.uniform(0.4, 1)
    cover = np.clip(noise(rng, size, 1.4) * 0.4 + rng.uniform(-0.5, 0.5), 0, 1)[..., None]
    return (image * (1 - cover) + rng.uniform(0.75, 1) * cover).astype(np.float32)


def random_material(rng: Generator, size: int) -> Image:
    """Draw any texture but the sky, with some wear."""
    kinds = [clouds, dead_leaves, regular_pattern, lines, nearly_plain]
    kind = kinds[rng.choice(5, p=[0.28, 0.27, 0.22, 0.11, 0.12])]
    wear = 0.0 if kind is nearly_plain else rng.uniform(0, 0.12)
    return kind(rng, size) * (1 + wear * noise(rng, size, rng.uniform(0.2, 1))[..., None])
