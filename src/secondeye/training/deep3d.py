"""Training of the rival Deep3D: right views made from left ones, compared with the true ones by L1.

It sees single frames of the stereo clips and the synthetic shots, reduced to the network's size, and no
disparity but for the range of its shifts. Half of the samples are mirrored, which exchanges the views (ours).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.shards import open_dataset
from secondeye.deep3d.model import save_deep3d
from secondeye.deep3d.network import Deep3D
from secondeye.deep3d.selection import Shifts, choose_shifts, expected_shift, select, shift_view
from secondeye.imaging.arrays import disparity_ends, resize
from secondeye.params import TrainDeep3D
from secondeye.run_folder import Run
from secondeye.system.process import is_main_process
from secondeye.training.held_out import held_out_films
from secondeye.training.loop import training_loop
from secondeye.training.provenance import train_clips
from secondeye.training.sample_loader import Sample
from secondeye.training.sample_order import SampleOrder
from secondeye.training.sample_sheet import write_sample_sheet

NAME = "deep3d"  # prefix of metrics and checkpoints
RANGE_SHOTS = 500  # at most, whose middle frames give the range of disparities
RANGE_POINTS = 36, 64  # rows and columns of such a frame that count
VALIDATION_SHOTS = 64  # at most
SHEET_SHOTS = 6


class PairShot(Protocol):
    """A shot with two views; itself only a small description."""

    @property
    def film(self) -> str:
        """The film it is from; films are held out whole. A synthetic shot counts as a film of its own."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    def views(self, frame: int) -> tuple[Tensor, Tensor]:  # left, right [1, 3, H, W]
        """Read both views of a frame."""

    def disparity(self, frame: int) -> Tensor:  # [1, 1, H, W] px
        """Read the disparity of a frame's left view."""


@dataclass(frozen=True)
class ClipPair:
    """A stereo clip."""

    dataset: Dataset
    clip: DatasetClip  # with the rows that reading needs

    @property
    def film(self) -> str:
        return self.clip.film.id

    @property
    def frames(self) -> int:
        return self.clip.clip.stop - self.clip.clip.start

    def views(self, frame: int) -> tuple[Tensor, Tensor]:
        return self.dataset.views(self.clip, [frame])

    def disparity(self, frame: int) -> Tensor:
        return self.dataset.disparity(self.clip, [frame])


@dataclass(frozen=True)
class RenderedPair:
    """A synthetic shot."""

    dataset: Dataset
    row: SyntheticShot

    @property
    def film(self) -> str:
        return self.row.id

    @property
    def frames(self) -> int:
        return self.row.frames

    def views(self, frame: int) -> tuple[Tensor, Tensor]:
        return self.dataset.synthetic_views(self.row, [frame])

    def disparity(self, frame: int) -> Tensor:
        return self.dataset.synthetic_disparity(self.row, [frame])


def train(run: Run, data: Path, settings: TrainDeep3D) -> None:
    """Train on a dataset; see `train_deep3d`."""
    train_deep3d(run, list_pairs(open_dataset(data)), settings)


def list_pairs(dataset: Dataset) -> list[PairShot]:
    """List the clips, then the synthetic shots. Raises UserError if all clips are held out."""
    reader = replace(dataset)  # without the tables that were read, which are larger than the listing
    clips = [ClipPair(reader, clip.only(Correction, ClipDisparity)) for clip in train_clips(dataset)]
    return [*clips, *(RenderedPair(reader, row) for row in dataset.rows(SyntheticShot))]


def train_deep3d(run: Run, shots: Sequence[PairShot], settings: TrainDeep3D) -> None:
    """Train on shots, and write the weights to `run.model` and a sample sheet.

    Continues a killed run exactly. Validates on held-out films, see `held_out_films`.
    """
    films = held_out_films("train_deep3d", (shot.film for shot in shots))
    trained_on = [shot for shot in shots if shot.film not in films]
    held_out = _spread([shot for shot in shots if shot.film in films] or shots, VALIDATION_SHOTS)
    size = settings.height, settings.width
    shifts = choose_shifts(*disparity_range(trained_on, settings.width), settings.max_shifts)
    torch.manual_seed(settings.optimizer.seed)
    model = Deep3D(*size, shifts)
    training_loop(
        model,
        run,
        name=NAME,
        hyperparams=settings.optimizer,
        draw=DrawPair(trained_on, size, settings.optimizer.seed),
        loss=partial(compute_loss, shifts),
        validate=lambda trained: _validate(trained, shifts, [_read_middle(one, size) for one in held_out]),
    )
    if is_main_process():
        save_deep3d(model, run.model)
        shown = [_read_middle(shot, size) for shot in held_out[:SHEET_SHOTS]]
        _write_sheet(run.picture("deep3d.png"), model, shown)


def disparity_range(
    shots: Sequence[PairShot],
    width: int,  # px, of the network
) -> tuple[float, float]:  # far, near, px of `width`
    """Return the 1st and 99th percentile of disparity over the middle frames of at most RANGE_SHOTS shots.

    Every shot has the same weight, whatever its size.
    """
    planes = []
    for shot in _spread(shots, RANGE_SHOTS):
        plane = shot.disparity(shot.frames // 2)
        points = F.interpolate(plane, RANGE_POINTS, mode="nearest")
        planes.append(points * (width / plane.shape[-1]))
    return disparity_ends(torch.cat(planes).numpy())


def _spread(shots: Sequence[PairShot], count: int) -> list[PairShot]:
    """Return at most `count` shots, evenly spread."""
    if len(shots) <= count:
        return list(shots)
    return [shots[k] for k in np.linspace(0, len(shots) - 1, count).round().astype(int)]


class DrawPair:
    """Draws both views of a frame, [3, h, w] each; an epoch takes every shot once."""

    def __init__(
        self,
        shots: Sequence[PairShot],
        size: tuple[int, int],  # height and width of a sample, px
        seed: int,  # of the shots' order
    ) -> None:
        self.shots, self.size = shots, size
        self.order = SampleOrder([1] * len(shots), seed)

    def __call__(self, number: int, rng: np.random.Generator) -> Sample:
        shot = self.shots[self.order.shot(number)]
        left, right = _read(shot, int(rng.integers(shot.frames)), self.size)
        # A mirrored pair shows the mirrored scene, seen by exchanged eyes: its disparity is the same.
        return (left, right) if rng.random() < 0.5 else (right.flip(-1), left.flip(-1))


def _read(shot: PairShot, frame: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:  # [3, h, w] each
    left, right = (resize(view, *size)[0] for view in shot.views(frame))
    return left, right


def _read_middle(shot: PairShot, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    return _read(shot, shot.frames // 2, size)


def compute_loss(shifts: Shifts, model: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the mean absolute error of the right view, and the mean absolute shift to log."""
    left, right = sample
    probabilities = model(left)
    error = (select(left, probabilities, shifts.px) - right).abs().mean()
    return error, {"shift_percent": _shift_percent(probabilities, shifts, left.shape[-1])}


def _shift_percent(probabilities: Tensor, shifts: Shifts, width: int) -> Tensor:
    """Return the mean absolute expected shift, % of the width: 0 for a copy of the left view."""
    return expected_shift(probabilities.detach(), shifts.px).abs().mean() * (100 / width)


@torch.inference_mode()
def _validate(model: nn.Module, shifts: Shifts, pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Compute PSNR of the right views and of the left views moved by the best constant shift of each pair."""
    made, constant, moved = [], [], []
    for left, right in pairs:
        probabilities = model(left[None])
        made.append(_squared_error(select(left[None], probabilities, shifts.px)[0], right))
        constant.append(min(_squared_error(shift_view(left, shift), right) for shift in shifts.px))
        moved.append(float(_shift_percent(probabilities, shifts, left.shape[-1])))
    errors = {"psnr_db": made, "best_shift_psnr_db": constant}
    scores = {
        name: -10 * float(np.log10(max(float(np.mean(error)), 1e-10))) for name, error in errors.items()
    }
    return scores | {"held_out_shift_percent": float(np.mean(moved))}


def _squared_error(view: Tensor, truth: Tensor) -> float:
    return float(((view - truth) ** 2).mean())


@torch.inference_mode()
def _write_sheet(path: Path, model: Deep3D, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write an image with a column for each pair: left, made right, true right, expected shift."""
    left, right = (torch.stack(views) for views in zip(*pairs, strict=True))
    probabilities, shifts_px = model(left), model.shifts.px
    shift = resize(expected_shift(probabilities, shifts_px), *left.shape[-2:]) - shifts_px[0]
    gray = (shift / max(shifts_px[-1] - shifts_px[0], 1)).expand(-1, 3, -1, -1)
    rows = torch.cat([left, select(left, probabilities, shifts_px), right, gray], dim=2)
    sheet = torch.cat(list(rows), dim=2).clamp(0, 1).permute(1, 2, 0).numpy()
    write_sample_sheet(path, (sheet * 255).round().astype(np.uint8))
