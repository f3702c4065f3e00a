"""A film of a near card before a far background; both move, so that depth follows from motion."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from secondeye.video.write import write_film


def write_moving_card(path: Path, frames: int, height: int, width: int, fps: int, seed: int = 0) -> Path:
    """Write the film with a stereo tone; pictures are made one by one."""
    time = np.arange(frames * 48000 // fps) / 48000
    tone = np.stack([np.sin(2 * np.pi * 440 * time)] * 2).astype(np.float32) * 0.2
    write_film(path, _pictures(frames, height, width, seed), Fraction(fps), audio=tone)
    return path


def _pictures(frames: int, height: int, width: int, seed: int) -> Iterator[np.ndarray]:  # uint8 [H, W, 3]
    step = max(1, width // 320)  # px a frame
    far = _texture(height, width + frames * step, seed)
    near = _texture(height // 2, width // 4 + frames * step, seed + 1)
    for frame in range(frames):
        picture = far[:, frame * step : frame * step + width].copy()
        top, left = height // 4, width // 2 - width // 8 - 2 * frame * step % (width // 8)
        picture[top : top + len(near), left : left + width // 4] = near[:, : width // 4]
        yield picture


def _texture(height: int, width: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3))
    smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth.clip(0, 255).round().astype(np.uint8)
