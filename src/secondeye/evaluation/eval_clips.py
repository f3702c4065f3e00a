"""A held-out clip as every method gets it, and the manifest that freezes which clips these are."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, read_disparity, read_plane
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import ClipDisparity, Correction, EvalClip
from secondeye.dataset.tables import read_table
from secondeye.system.errors import UserError


@dataclass(frozen=True)
class Folders:
    """Where the dataset lies."""

    split: Path
    shift: Path
    match: Path
    regions: Path  # of the stage `evaluate`


class EvalFrames(NamedTuple):
    """One held-out clip."""

    left: Tensor  # [T, 3, H, W]
    right: Tensor  # [T, 3, H, W]: the truth
    disparity: Tensor  # [T, 1, H, W] px of the left eye, as matched
    regions: Tensor  # uint8 [T, 1, H, W]: evaluation.regions


def load_clip(folders: Folders, name: str, frames: int) -> EvalFrames:
    """The first `frames` frames of a clip. Raises Refusal when the dataset was rebuilt without it."""
    shifted = {row.id: row for row in read_table(folders.shift / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(folders.match / "match.parquet", ClipDisparity)}
    for folder, rows in ((folders.shift, shifted), (folders.match, matched)):
        if name not in rows:
            raise UserError(f"{folder}: was rebuilt since, without clip {name}; run dvc repro evaluate")
    left, right = load_views(folders.split, shifted[name])
    disparity = read_disparity(clip_file(folders.match, name, "disparity"), matched[name].offset_px)
    regions = read_plane(clip_file(folders.regions, name, "regions"))
    return EvalFrames(*(array[:frames] for array in (left, right, disparity, regions)))


def load_middle(folders: Folders, name: str, frames: int) -> EvalFrames:
    """The frame in the middle of the first `frames` frames: what pictures show."""
    clip = load_clip(folders, name, frames)
    middle = len(clip.left) // 2
    return EvalFrames(*(array[middle : middle + 1] for array in clip))


def manifest_hash(held: Sequence[EvalClip]) -> str:
    """What models are judged on: clips, the keys of all that made them, and their regions by content."""
    lines = sorted(f"{row.id} {row.key} {row.digest}" for row in held)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def align(
    depth: Tensor,  # [T, 1, H, W] relative inverse depth
    disparity: Tensor,  # [T, 1, H, W] px
) -> Tensor:  # [T, 1, H, W] px
    """The depth as disparity, by the clip's one scale (not negative) and shift that fit best (least squares).

    These are what a viewer sets with strength and convergence; a model is judged by the rest.
    """
    x, y = depth.double(), disparity.double()
    spread = ((x - x.mean()) ** 2).mean()
    scale = ((x - x.mean()) * (y - y.mean())).mean() / spread.clamp_min(1e-12)
    scale = scale.clamp_min(0)
    return torch.as_tensor(scale * (x - x.mean()) + y.mean(), dtype=torch.float32)
