"""Analytic stereo scene: planes with hard outlines and band-limited texture, both views exact."""

import math

import torch
from torch import Tensor

from secondeye.synthetic import Shot

HIGHEST_FREQUENCY = 0.3  # cycles a pixel of the left view
WAVES = 40
SAMPLES = 8  # across a pixel
CARDS = 7


def layered_scene(seed: int, height: int, width: int) -> Shot:
    """Render one frame of a slanted background and planes in front of it; pixels are box-filtered."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator, dtype=torch.float64)

    y = torch.arange(height, dtype=torch.float64)[:, None]
    fine = (torch.arange(width * SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES - 0.5
    views = {side: [torch.zeros(3, height, width * SAMPLES, dtype=torch.float64)] for side in "lr"}
    nearness = {side: torch.full((height, width * SAMPLES), -math.inf, dtype=torch.float64) for side in "lr"}
    for number in range(CARDS + 1):
        slope = float(draw(-0.25, 0.25, 1)) if number % 2 == 0 else 0.0
        middle, half = float(draw(0, width, 1)), float(draw(0.05, 0.15, 1)) * width
        near = float(draw(0.01, 0.04, 1)) * width
        top = float(draw(0, 0.7, 1)) * height
        if number == 0:
            middle, half, near, top, slope = width / 2, 2.0 * width, 0.0, -1.0, slope / 20
        tall = height + 2 if number == 0 else 0.3 * height
        frequency = 2 * math.pi * draw(0, HIGHEST_FREQUENCY, WAVES)
        drift, phase = draw(-2, 2, WAVES), draw(0, 2 * math.pi, 3, 1, WAVES)
        for side, image in views.items():
            # On the plane the disparity is near + slope * (u - middle), u the column in the left view.
            u = fine if side == "l" else (fine + near - slope * middle) / (1 - slope)
            disparity = near + slope * (u - middle)
            inside = ((u - middle).abs() <= half) & (y >= top) & (y < top + tall)
            seen = inside & (disparity > nearness[side])
            across, down = frequency[:, None] * u, phase + drift * y  # [WAVES, W], [3, H, WAVES]
            wave = down.cos() @ across.sin() + down.sin() @ across.cos()
            image[0] = torch.where(seen, 0.5 + wave / (3 * math.sqrt(WAVES)), image[0])
            nearness[side] = torch.where(seen, disparity, nearness[side])
    left, right = (views[side][0].unflatten(-1, (width, SAMPLES)).mean(-1).clamp(0, 1) for side in "lr")
    centres = {
        side: plane.unflatten(-1, (width, SAMPLES))[..., SAMPLES // 2] for side, plane in nearness.items()
    }
    hidden = {side: _hidden(centres[side], centres[other], sign) for side, other, sign in ("lr-", "rl+")}
    return Shot(
        left[None].float(),
        right[None].float(),
        centres["l"][None, None].float(),
        centres["r"][None, None].float(),
        hidden["l"][None, None],
        hidden["r"][None, None],
    )


def _hidden(disparity: Tensor, other: Tensor, sign: str) -> Tensor:
    """Return True outside the other view, or behind a surface nearer by more than half a pixel."""
    width = disparity.shape[-1]
    place = torch.arange(width) + (disparity if sign == "+" else -disparity)
    outside = (place < 0) | (place > width - 1)
    there = other.gather(-1, place.round().clamp(0, width - 1).long())
    return outside | (there > disparity + 0.5)
