"""Pass 1: estimate the raw depth of one shot, stream it to disk, and normalise it to [0, 1].

The pass can be interrupted at any moment: the estimator's state is saved after every `save_every` frames.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from secondeye.conversion.checkpoint import save_tensors
from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE, DepthEstimator, DepthState, SteppedEstimator
from secondeye.system.files import write_atomic

WindowsFrom = Callable[[int], Iterable[Tensor]]
"""Windows, uint8 [t, H, W, 3], of a shot from this frame on, counted from the shot's start."""

STEPS = 65535  # of normalised depth
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

    def read(self, start: int, stop: int) -> Tensor:
        """Return the depth of frames `start` to `stop - 1` of the shot, [t, 1, h, w] in [0, 1].

        It is 0.5 if the shot's raw depth is constant.
        """
        raw = _read(self.path, start, stop, self.height, self.width)
        value_range = self.high - self.low
        depth = (raw - self.low) / value_range if value_range > 0 else np.full_like(raw, 0.5)
        # To 16 bits, so that depth maps that are written and read again give the same film.
        steps = np.float32(STEPS)
        return torch.from_numpy(np.rint(depth.clip(0, 1) * steps) / steps)[:, None]

    def delete(self) -> None:
        """Delete the files of the shot's depth pass."""
        for path in (_record(self.path), _state(self.path), self.path):
            path.unlink(missing_ok=True)


@dataclass
class _Progress:
    """The raw depth of a shot so far."""

    frames: int = 0
    height: int = 0
    width: int = 0
    lowest: float = np.inf
    highest: float = -np.inf
    confidence: float = 0.0  # sum over frames

    def add(self, raw: np.ndarray, confidence: float) -> None:  # [t, h, w]
        self.height, self.width = raw.shape[1:]
        self.frames += len(raw)
        self.lowest, self.highest = min(self.lowest, float(raw.min())), max(self.highest, float(raw.max()))
        self.confidence += confidence * len(raw)


def estimate_shot(
    windows_from: WindowsFrom,
    estimator: DepthEstimator,
    path: Path,  # .f32; files beside it hold the progress
    *,
    save_every: int,  # frames
    on_frames: Callable[[int], object] = lambda frames: None,  # called with how many more are done
) -> ShotDepth:
    """Estimate the depth of a shot and store it in `path`, or continue where an earlier process stopped.

    `on_frames` also gets the frames of the earlier process: in all those of the shot.
    """
    if _record(path).exists():
        done = ShotDepth(path, **json.loads(_record(path).read_text()))
        on_frames(done.frames)
        return done
    progress, state = _resume(path)
    if progress.frames:
        on_frames(progress.frames)
    windows = windows_from(0 if state is None else state.first_frame)
    if isinstance(estimator, SteppedEstimator):
        estimator, on_frames = estimator.reporting(on_frames), lambda frames: None
    with path.open("ab") as file:
        file.truncate(progress.frames * progress.height * progress.width * 4)
        for estimate in estimator(windows, state):
            raw = estimate.depth[:, 0].numpy().astype(np.float32)
            file.write(raw.tobytes())
            before = progress.frames
            progress.add(raw, estimate.confidence)
            on_frames(len(raw))
            if before // save_every != progress.frames // save_every:
                _flush(file.fileno(), file.flush)
                _save(path, progress, estimate.state)
        _flush(file.fileno(), file.flush)
    low, high = _quantiles(path, progress)
    depth = ShotDepth(
        path,
        progress.frames,
        progress.height,
        progress.width,
        low,
        high,
        progress.confidence / progress.frames,
    )
    record = asdict(depth)
    del record["path"]
    write_atomic(_record(path), json.dumps(record))
    return depth


def _record(path: Path) -> Path:
    return path.with_suffix(".json")


def _state(path: Path) -> Path:
    return path.with_suffix(".safetensors")


def _flush(handle: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(handle)


def _save(path: Path, progress: _Progress, state: DepthState) -> None:
    frames = {"next_frame": state.next_frame, "first_frame": state.first_frame}
    record = {"progress": asdict(progress), "state": frames}
    write_atomic(_state(path), save_tensors(state.tensors, {"record": json.dumps(record)}))


def _resume(path: Path) -> tuple[_Progress, DepthState | None]:
    if not _state(path).exists():
        return _Progress(), None
    with safe_open(_state(path), "pt") as file:
        record = json.loads(file.metadata()["record"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    return _Progress(**record["progress"]), DepthState(**record["state"], tensors=tensors)


def _quantiles(path: Path, progress: _Progress) -> tuple[float, float]:
    """Return the far and near quantile of the shot's raw depth, from a histogram."""
    lowest, highest = progress.lowest, progress.highest
    if not highest > lowest:
        return lowest, lowest
    counts = np.zeros(_BINS, np.int64)
    for start, stop in pairwise([*range(0, progress.frames, _CHUNK_FRAMES), progress.frames]):
        raw = _read(path, start, stop, progress.height, progress.width)
        # In float32, NumPy refuses a range that is narrower than so many steps of its numbers.
        counts += np.histogram(raw.astype(np.float64), _BINS, (lowest, highest))[0]
    cumulative = np.cumsum(counts) / counts.sum()
    edges = np.linspace(lowest, highest, _BINS + 1)
    low = edges[np.searchsorted(cumulative, FAR_QUANTILE)]
    return float(low), float(edges[np.searchsorted(cumulative, NEAR_QUANTILE) + 1])


def _read(path: Path, start: int, stop: int, height: int, width: int) -> np.ndarray:  # [t, h, w]
    values = np.fromfile(path, np.float32, (stop - start) * height * width, offset=start * height * width * 4)
    return values.reshape(stop - start, height, width)
