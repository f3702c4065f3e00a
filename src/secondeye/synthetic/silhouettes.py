"""The outlines of cards: what stands on the ground, what hangs, what floats, and what one looks through.

Every silhouette is a picture of opacity, 1 inside. Things that stand touch its lower edge, things that
hang its upper edge; screens (fence, lattice, wires, blinds) may be repeated side by side without a seam.
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


def _oval(canvas: Canvas, x: float, y: float, wide: float, high: float, angle: float = 0) -> None:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    along, across = wide * np.cos(turn), high * np.sin(turn)
    c, s = np.cos(angle), np.sin(angle)
    _polygon(canvas, np.stack([x + along * c - across * s, y + along * s + across * c], -1))


def disc(rng: Generator, canvas: Canvas) -> None:
    _oval(canvas, 0.5, 0.5, 0.49, 0.49)


def blob(rng: Generator, canvas: Canvas) -> None:
    """A closed outline with a 1/f boundary: stone, cloud, animal."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    waves = np.arange(1, 12)
    size = rng.normal(0, 1, 11) / waves**1.2
    radius = 1 + 0.25 * (size * np.cos(turn[:, None] * waves + rng.uniform(0, 6.3, 11))).sum(1)
    radius = 0.49 * np.abs(radius) / np.abs(radius).max()
    _polygon(canvas, 0.5 + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], -1))


def corners(rng: Generator, canvas: Canvas) -> None:
    """A polygon with three to nine corners, convex or a star."""
    turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 10)))
    radius = rng.uniform(0.15, 0.49, len(turn)) if rng.integers(2) else np.full(len(turn), 0.49)
    _polygon(canvas, 0.5 + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], -1))


def hoop(rng: Generator, canvas: Canvas) -> None:
    """A thing with a hole: ring, handle, window frame."""
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


def figure(rng: Generator, canvas: Canvas) -> None:
    """Somebody standing."""
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
            wide, high, angle = rng.uniform(0.012, [0.05, 0.05, 3.2])
            _oval(canvas, tip[0], tip[1], wide, high, angle)
        return
    for _ in range(int(rng.integers(2, 4))):
        start = foot + (tip - foot) * rng.uniform(0.5, 1)
        turn = heading + rng.uniform(0.2, 0.8) * rng.choice([-1, 1])
        _branch(rng, canvas, start, turn, length * rng.uniform(0.55, 0.8), leafy)


def tree(rng: Generator, canvas: Canvas) -> None:
    _branch(rng, canvas, np.array([0.5, 1.0]), -np.pi / 2 + rng.normal(0, 0.08), 0.36, True)


def twigs(rng: Generator, canvas: Canvas) -> None:
    _branch(rng, canvas, np.array([0.5, 1.0]), -np.pi / 2 + rng.normal(0, 0.15), 0.36, False)


def tuft(rng: Generator, canvas: Canvas) -> None:
    """Grass or hair: many thin bent strands from one place, thinner than a pixel when far."""
    bend = np.linspace(0, 1, 8)
    for _ in range(int(rng.integers(25, 90))):
        foot = rng.uniform(0.25, 0.75)
        lean, height = rng.normal(0, 0.22), rng.uniform(0.4, 0.98)
        strand = np.stack([foot + lean * bend**2, 1 - height * bend], -1)
        _stroke(canvas, strand, rng.uniform(0.002, 0.009))


def foliage(rng: Generator, canvas: Canvas) -> None:
    """Separate leaves with gaps, denser in the middle."""
    for _ in range(int(rng.integers(60, 220))):
        x, y = np.clip(rng.normal(0.5, 0.17, 2), 0.06, 0.94)
        _oval(canvas, x, y, rng.uniform(0.02, 0.055), rng.uniform(0.008, 0.022), rng.uniform(0, 3.2))


def column(rng: Generator, canvas: Canvas) -> None:
    """A trunk, a post or a pipe over the whole height."""
    y = np.linspace(0, 1, 24)
    left = 0.3 + 0.1 * np.cumsum(rng.normal(0, 0.08, 24))
    right = 0.7 + 0.1 * np.cumsum(rng.normal(0, 0.08, 24))
    _polygon(canvas, np.concatenate([np.stack([left, y], -1), np.stack([right, y], -1)[::-1]]))


def lamp(rng: Generator, canvas: Canvas) -> None:
    """A shade on a thin cable."""
    drop = rng.uniform(0.3, 0.7)
    _stroke(canvas, np.array([[0.5, 0], [0.5, drop]]), 0.012)
    brim, neck = rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.15)
    shade = [[0.5 - neck, drop], [0.5 + neck, drop], [0.5 + brim, 0.97], [0.5 - brim, 0.97]]
    _polygon(canvas, np.array(shade))


def fence(rng: Generator, canvas: Canvas) -> None:
    """Pickets or bars between two rails."""
    pickets = int(rng.integers(2, 6))
    share = rng.uniform(0.12, 0.6)
    for k in range(pickets):
        x0, x1 = (k + 0.5 - 0.5 * share) / pickets, (k + 0.5 + 0.5 * share) / pickets
        _polygon(canvas, np.array([[x0, 0.06], [(x0 + x1) / 2, 0.01], [x1, 0.06], [x1, 1], [x0, 1]]))
    for y in (0.2, 0.8):
        _polygon(canvas, np.array([[0, y], [1, y], [1, y + 0.05], [0, y + 0.05]]))


def lattice(rng: Generator, canvas: Canvas) -> None:
    """Crossing diagonals: wire mesh, trellis."""
    thickness = rng.uniform(0.01, 0.06)
    repeats = int(rng.integers(2, 6))
    for k in np.arange(-repeats, repeats + 1) / repeats:
        _stroke(canvas, np.array([[k, 0], [k + 1, 1]]), thickness)
        _stroke(canvas, np.array([[1 - k, 0], [-k, 1]]), thickness)


def wires(rng: Generator, canvas: Canvas) -> None:
    """A few sagging cables."""
    x = np.linspace(0, 1, 32)
    for y in rng.uniform(0.1, 0.8, rng.integers(2, 6)):
        sag = rng.uniform(0, 0.15)
        _stroke(canvas, np.stack([x, y + sag * (1 - (2 * x - 1) ** 2)], -1), rng.uniform(0.004, 0.02))


def blinds(rng: Generator, canvas: Canvas) -> None:
    """Horizontal slats."""
    slats = int(rng.integers(3, 9))
    share = rng.uniform(0.2, 0.6)
    for k in range(slats):
        y0, y1 = (k + 0.5 - 0.5 * share) / slats, (k + 0.5 + 0.5 * share) / slats
        _polygon(canvas, np.array([[0, y0], [1, y0], [1, y1], [0, y1]]))


def cloud(rng: Generator, canvas: Canvas) -> None:
    """Soft smoke without an edge anywhere."""
    size = len(canvas)
    x = np.linspace(-1, 1, size)
    dome = np.clip(1 - np.hypot(x[:, None], x[None, :]), 0, 1)
    canvas[:] = np.clip(dome * (1 + 0.5 * noise(rng, size, 1.5)), 0, 1) * 255


Draw = Callable[[Generator, Canvas], None]

STANDING: tuple[Draw, ...] = (figure, tree, twigs, tuft, column, hoop, fence)
FLOATING: tuple[Draw, ...] = (disc, blob, corners, hoop, foliage, blob)
HANGING: tuple[Draw, ...] = (lamp, twigs, tree, foliage, column)  # twigs and trees are turned over
SCREENS: tuple[Draw, ...] = (fence, lattice, wires, blinds)


def silhouette(
    rng: Generator,
    draw: Draw,
    size: int,
) -> NDArray[np.float32]:  # [size, size, 1] opacity in [0, 1]
    """One outline, anti-aliased."""
    canvas = np.zeros((2 * size, 2 * size), np.uint8)
    draw(rng, canvas)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
