"""Pass 1: estimate the raw depth of one shot, stream it to disk, and normalise it to [0, 1]."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE, DepthEstimator

_BINS = 4096
_CHUNK_FRAMES = 64


@dataclass(frozen=True)
class ShotDepth:
    """The raw depth of a shot, stored as float32 [T, h, w]."""

    path: Path
    frames: int
    height: int
    width: int
    low: float  # raw depth normalised to 0
    high: float  # raw depth normalised to 1
    confidence: float  # [0, 1], mean over frames

    def windows(self, frames: int) -> Iterator[Tensor]:
        """Yield depth in [0, 1], [t, 1, h, w], `frames` at a time; 0.5 if the raw depth is constant."""
        value_range = self.high - self.low
        for raw in _read(self.path, self.frames, self.height, self.width, frames):
            depth = (raw - self.low) / value_range if value_range > 0 else np.full_like(raw, 0.5)
            yield torch.from_numpy(depth.clip(0, 1))[:, None]


def estimate_shot(windows: Iterable[Tensor], estimator: DepthEstimator, path: Path) -> ShotDepth:
    """Estimate the depth of a shot's frames [t, 3, H, W], window by window, and store it in `path`."""
    frames, height, width, confidence = 0, 0, 0, 0.0
    lowest, highest = np.inf, -np.inf
    with path.open("wb") as file:
        for estimate in estimator(windows):
            raw = estimate.depth[:, 0].numpy().astype(np.float32)
            file.write(raw.tobytes())
            lowest, highest = min(lowest, float(raw.min())), max(highest, float(raw.max()))
            confidence += estimate.confidence * len(raw)
            frames, height, width = frames + len(raw), raw.shape[1], raw.shape[2]
    low, high = _quantiles(path, frames, height, width, lowest, highest)
    return ShotDepth(path, frames, height, width, low, high, confidence / frames)


def _quantiles(
    path: Path, frames: int, height: int, width: int, lowest: float, highest: float
) -> tuple[float, float]:
    """Return the far and near quantile of the shot's raw depth, from a histogram."""
    if not highest > lowest:
        return lowest, lowest
    counts = np.zeros(_BINS, np.int64)
    for raw in _read(path, frames, height, width, _CHUNK_FRAMES):
        counts += np.histogram(raw, _BINS, (lowest, highest))[0]
    cumulative = np.cumsum(counts) / counts.sum()
    edges = np.linspace(lowest, highest, _BINS + 1)
    low = edges[np.searchsorted(cumulative, FAR_QUANTILE)]
    return float(low), float(edges[np.searchsorted(cumulative, NEAR_QUANTILE) + 1])


def _read(path: Path, frames: int, height: int, width: int, chunk_frames: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        for start in range(0, frames, chunk_frames):
            count = min(chunk_frames, frames - start)
            values = np.frombuffer(file.read(count * height * width * 4), np.float32)
            yield values.reshape(count, height, width)
