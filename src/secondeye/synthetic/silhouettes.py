"""Silhouettes of cards: shapes that stand, hang or float, and see-through screens.

Every silhouette is an opacity map, 1 inside. Standing shapes touch the lower border, hanging ones the upper
border; screens (fence, lattice, wires, blinds) tile horizontally without a seam.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from secondeye.synthetic.textures import noise

Canvas = NDArray[np.uint8]  # [N, N], 0 or 255, drawn in [0, 1] coordinates
Points = NDArray[np.floating]  # [P, 2] x, y in [0, 1], y down


def _polygon(canvas: Canvas, points: Points) -> None:
    cv2.fillPoly(canvas, [np.rint(points * len(canvas) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)


def _stroke(canvas: Canvas, points: Points, thickness: float) -> None:
    path = [np.rint(points * len(canvas) * 16).astype(np.int32)]
    cv2.polylines(canvas, path, False, 255, max(1, round(thickness * len(canvas))), cv2.LINE_AA, 4)


def _oval(
    canvas: Canvas, x: float, y: float, half_width: float, half_height: float, angle: float = 0
) -> None:
    theta = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    along, across = half_width * np.cos(theta), half_height * np.sin(theta)
    c, s = np.cos(angle), np.sin(angle)
    _polygon(canvas, np.stack([x + along * c - across * s, y + along * s + across * c], -1))


def disc(rng: Generator, canvas: Canvas) -> None:
    _oval(canvas, 0.5, 0.5, 0.49, 0.49)


def blob(rng: Generator, canvas: Canvas) -> None:
    """Draw a closed outline with a 1/f spectrum: stone, cloud, animal."""
    theta = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    waves = np.arange(1, 12)
    size = rng.normal(0, 1, 11) / waves**1.2
    radius = 1 + 0.25 * (size * np.cos(theta[:, None] * waves + rng.uniform(0, 6.3, 11))).sum(1)
    radius = 0.49 * np.abs(radius) / np.abs(radius).max()
    _polygon(canvas, 0.5 + radius[:, None] * np.stack([np.cos(theta), np.sin(theta)], -1))


def polygon(rng: Generator, canvas: Canvas) -> None:
    """Draw a polygon with three to nine corners, convex or star-shaped."""
    theta = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 10)))
    radius = rng.uniform(0.15, 0.49, len(theta)) if rng.integers(2) else np.full(len(theta), 0.49)
    _polygon(canvas, 0.5 + radius[:, None] * np.stack([np.cos(theta), np.sin(theta)], -1))


def ring_or_frame(rng: Generator, canvas: Canvas) -> None:
    """Draw a shape with holes: ring, handle, window frame."""
    if rng.integers(2):
        _oval(canvas, 0.5, 0.5, 0.49, 0.49)
        hole = np.zeros_like(canvas)
        _oval(hole, 0.5, 0.5, rng.uniform(0.2, 0.44), rng.uniform(0.2, 0.44))
        canvas[:] = np.minimum(canvas, 255 - hole)
        return
    canvas[:] = 255
    bar = rng.uniform(0.03, 0.12)
    panes = int(rng.integers(1, 4))
    edges = np.linspace(0, 1 - bar, panes + 1)
    for x0, x1 in zip(edges[:-1] + bar, edges[1:], strict=True):
        for y0, y1 in zip(edges[:-1] + bar, edges[1:], strict=True):
            _polygon_hole(canvas, x0, y0, x1, y1)


def _polygon_hole(canvas: Canvas, x0: float, y0: float, x1: float, y1: float) -> None:
    a, b, c, d = (round(edge * len(canvas)) for edge in (x0, y0, x1, y1))
    canvas[b:d, a:c] = 0


def person(rng: Generator, canvas: Canvas) -> None:
    """Draw a standing person."""
    head = rng.uniform(0.06, 0.08)
    _oval(canvas, 0.5, 0.02 + 1.25 * head, head, 1.25 * head)
    hips = rng.uniform(0.08, 0.12)
    _oval(canvas, 0.5, 0.36, hips + 0.05, 0.21)
    for side in (-1, 1):
        foot = 0.5 + side * rng.uniform(0.02, 0.18)
        _stroke(canvas, np.array([[0.5 + side * hips * 0.5, 0.5], [foot, 0.99]]), 0.08)
        hand = np.array([0.5 + side * rng.uniform(0.12, 0.35), rng.uniform(0.3, 0.6)])
        _stroke(canvas, np.array([[0.5 + side * hips, 0.24], [0.5 + side * (hips + 0.08), 0.4], hand]), 0.05)


def _branch(rng: Generator, canvas: Canvas, foot: Points, heading: float, length: float, leafy: bool) -> None:
    tip = foot + length * np.array([np.cos(heading), np.sin(heading)])
    _stroke(canvas, np.stack([foot, tip]), 0.07 * length)
    if length < 0.07:
        if leafy:
            half_width, half_height, angle = rng.uniform(0.012, [0.05, 0.05, 3.2])
            _oval(canvas, tip[0], tip[1], half_width, half_height, angle)
        return
    for _ in range(int(rng.integers(2, 4))):
        start = foot + (tip - foot) * rng.uniform(0.5, 1)
        theta = heading + rng.uniform(0.2, 0.8) * rng.choice([-1, 1])
        _branch(rng, canvas, start, theta, length * rng.uniform(0.55, 0.8), leafy)


def tree(rng: Generator, canvas: Canvas) -> None:
    _branch(rng, canvas, np.array([0.5, 1.0]), -np.pi / 2 + rng.normal(0, 0.08), 0.36, True)


def twigs(rng: Generator, canvas: Canvas) -> None:
    _branch(rng, canvas, np.array([0.5, 1.0]), -np.pi / 2 + rng.normal(0, 0.15), 0.36, False)


def grass(rng: Generator, canvas: Canvas) -> None:
    """Draw grass or hair: thin bent strands from one spot, narrower than a pixel at a distance."""
    bend = np.linspace(0, 1, 8)
    for _ in range(int(rng.integers(25, 90))):
        foot = rng.uniform(0.25, 0.75)
        lean, height = rng.normal(0, 0.22), rng.uniform(0.4, 0.98)
        strand = np.stack([foot + lean * bend**2, 1 - height * bend], -1)
        _stroke(canvas, strand, rng.uniform(0.002, 0.009))


def foliage(rng: Generator, canvas: Canvas) -> None:
    """Draw separate leaves with gaps, denser in the middle."""
    for _ in range(int(rng.integers(60, 220))):
        x, y = np.clip(rng.normal(0.5, 0.17, 2), 0.06, 0.94)
        _oval(canvas, x, y, rng.uniform(0.02, 0.055), rng.uniform(0.008, 0.022), rng.uniform(0, 3.2))


def trunk(rng: Generator, canvas: Canvas) -> None:
    """Draw a trunk, post or pipe over the full height."""
    y = np.linspace(0, 1, 24)
    left = 0.3 + 0.1 * np.cumsum(rng.normal(0, 0.08, 24))
    right = 0.7 + 0.1 * np.cumsum(rng.normal(0, 0.08, 24))
    _polygon(canvas, np.concatenate([np.stack([left, y], -1), np.stack([right, y], -1)[::-1]]))


def lamp(rng: Generator, canvas: Canvas) -> None:
    """Draw a lampshade on a thin cable."""
    drop = rng.uniform(0.3, 0.7)
    _stroke(canvas, np.array([[0.5, 0], [0.5, drop]]), 0.012)
    brim, neck = rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.15)
    shade = [[0.5 - neck, drop], [0.5 + neck, drop], [0.5 + brim, 0.97], [0.5 - brim, 0.97]]
    _polygon(canvas, np.array(shade))


def fence(rng: Generator, canvas: Canvas) -> None:
    """Draw pickets or bars between two rails."""
    pickets = int(rng.integers(2, 6))
    share = rng.uniform(0.12, 0.6)
    for k in range(pickets):
        x0, x1 = (k + 0.5 - 0.5 * share) / pickets, (k + 0.5 + 0.5 * share) / pickets
        _polygon(canvas, np.array([[x0, 0.06], [(x0 + x1) / 2, 0.01], [x1, 0.06], [x1, 1], [x0, 1]]))
    for y in (0.2, 0.8):
        _polygon(canvas, np.array([[0, y], [1, y], [1, y + 0.05], [0, y + 0.05]]))


def lattice(rng: Generator, canvas: Canvas) -> None:
    """Draw crossing diagonals: wire mesh, trellis."""
    thickness = rng.uniform(0.01, 0.06)
    repeats = int(rng.integers(2, 6))
    for k in np.arange(-repeats, repeats + 1) / repeats:
        _stroke(canvas, np.array([[k, 0], [k + 1, 1]]), thickness)
        _stroke(canvas, np.array([[1 - k, 0], [-k, 1]]), thickness)


def wires(rng: Generator, canvas: Canvas) -> None:
    """Draw a few sagging cables."""
    x = np.linspace(0, 1, 32)
    for y in rng.uniform(0.1, 0.8, rng.integers(2, 6)):
        sag = rng.uniform(0, 0.15)
        _stroke(canvas, np.stack([x, y + sag * (1 - (2 * x - 1) ** 2)], -1), rng.uniform(0.004, 0.02))


def blinds(rng: Generator, canvas: Canvas) -> None:
    """Draw horizontal slats."""
    slats = int(rng.integers(3, 9))
    share = rng.uniform(0.2, 0.6)
    for k in range(slats):
        y0, y1 = (k + 0.5 - 0.5 * share) / slats, (k + 0.5 + 0.5 * share) / slats
        _polygon(canvas, np.array([[0, y0], [1, y0], [1, y1], [0, y1]]))


def cloud(rng: Generator, canvas: Canvas) -> None:
    """Draw soft smoke without edges."""
    size = len(canvas)
    x = np.linspace(-1, 1, size)
    dome = np.clip(1 - np.hypot(x[:, None], x[None, :]), 0, 1)
    canvas[:] = np.clip(dome * (1 + 0.5 * noise(rng, size, 1.5)), 0, 1) * 255


DrawShape = Callable[[Generator, Canvas], None]

STANDING: tuple[DrawShape, ...] = (person, tree, twigs, grass, trunk, ring_or_frame, fence)
FLOATING: tuple[DrawShape, ...] = (disc, blob, polygon, ring_or_frame, foliage, blob)
HANGING: tuple[DrawShape, ...] = (lamp, twigs, tree, foliage, trunk)  # twigs and trees are turned upside down
SCREENS: tuple[DrawShape, ...] = (fence, lattice, wires, blinds)


def draw_silhouette(
    rng: Generator,
    draw: DrawShape,
    size: int,
) -> NDArray[np.float32]:  # [size, size, 1] opacity in [0, 1]
    """Draw one silhouette, anti-aliased."""
    canvas = np.zeros((2 * size, 2 * size), np.uint8)
    draw(rng, canvas)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
