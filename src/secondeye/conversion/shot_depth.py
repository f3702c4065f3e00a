"""Pass 1: the raw depth of one shot, spilled to disk as it comes, and how to bring it to [0, 1]."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE, DepthEstimator

_BINS = 4096
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class ShotDepth:
    """A shot's raw depth on disk; `low` and `high` become 0 and 1."""

    spill: Path
    frames: int
    height: int
    width: int
    low: float
    high: float
    confidence: float  # [0, 1]

    def windows(self, frames: int) -> Iterator[Tensor]:
        """Depth in [0, 1], [t, 1, h, w], `frames` at a time; 0.5 everywhere where the shot has no depth."""
        reach = self.high - self.low
        for raw in _read(self.spill, self.frames, self.height, self.width, frames):
            depth = (raw - self.low) / reach if reach > 0 else np.full_like(raw, 0.5)
            yield torch.from_numpy(depth.clip(0, 1))[:, None]


def estimate_shot(windows: Iterable[Tensor], estimator: DepthEstimator, spill: Path) -> ShotDepth:
    """Run the estimator over a shot's frames [t, 3, H, W], window by window."""
    frames, height, width, confidence = 0, 0, 0, 0.0
    lowest, highest = np.inf, -np.inf
    with spill.open("wb") as file:
        for estimate in estimator(windows):
            raw = estimate.depth[:, 0].numpy().astype(np.float32)
            file.write(raw.tobytes())
            lowest, highest = min(lowest, float(raw.min())), max(highest, float(raw.max()))
            confidence += estimate.confidence * len(raw)
            frames, height, width = frames + len(raw), raw.shape[1], raw.shape[2]
    low, high = _range(spill, frames, height, width, lowest, highest)
    return ShotDepth(spill, frames, height, width, low, high, confidence / frames)


def _range(
    spill: Path, frames: int, height: int, width: int, lowest: float, highest: float
) -> tuple[float, float]:
    """The values below which 1 % and 99 % of the shot's pixels lie, from a histogram."""
    if not highest > lowest:
        return lowest, lowest
    counts = np.zeros(_BINS, np.int64)
    for raw in _read(spill, frames, height, width, _FRAMES_AT_ONCE):
        counts += np.histogram(raw, _BINS, (lowest, highest))[0]
    below = np.cumsum(counts) / counts.sum()
    edges = np.linspace(lowest, highest, _BINS + 1)
    return float(edges[np.searchsorted(below, FAR_QUANTILE)]), float(
        edges[np.searchsorted(below, NEAR_QUANTILE) + 1]
    )


def _read(spill: Path, frames: int, height: int, width: int, at_once: int) -> Iterator[np.ndarray]:
    with spill.open("rb") as file:
        for start in range(0, frames, at_once):
            count = min(at_once, frames - start)
            values = np.frombuffer(file.read(count * height * width * 4), np.float32)
            yield values.reshape(count, height, width)
