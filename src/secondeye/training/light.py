"""Training of the light inpainter: a residual on top of `fill` in the holes, compared with the ground truth.

In the last part of a training a discriminator is trained too, and the inpainter learns to satisfy it. Both
are parts of one module under one AdamW, which treats every weight separately: as good as two optimizers, and
one checkpoint holds everything.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from secondeye.inpaint.fill import flow_gray
from secondeye.inpaint.light import save_light
from secondeye.inpaint.light_inputs import (
    FILLED,
    PREVIOUS,
    WARPED,
    flow_to_previous,
    pack_planes,
    soft_hole_mask,
    stack_inputs,
    warp_previous,
)
from secondeye.inpaint.light_network import CHANNELS, Light
from secondeye.inpaint.losses import (
    Discriminator,
    discriminator_loss,
    edge_loss,
    generator_loss,
    inpainting_loss,
)
from secondeye.params import TrainLight
from secondeye.run_folder import Run
from secondeye.system.process import is_main_process
from secondeye.training.loop import training_loop
from secondeye.training.monocular import fill_shot
from secondeye.training.sample_loader import Sample
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.shot_crops import ShotCrop, crop_plane, draw_crop
from secondeye.training.shots import hold_out, list_shots, select_usable
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize_plane, quantize_plane
from secondeye.training.windows import Windows, read_window

FIRST_FRAME_SHARE = 0.1  # of samples, which have no previous frame
FRAMES = 2  # of a sample: the previous frame, and the one to inpaint
FILL_LEAD = 1  # frames before them that `fill` sees, since it continues what it has filled before
FAR_AWAY_PX = 1e6  # a flow that leads out of any frame
MIN_ERROR = 0.01  # of `fill`, that the loss is relative to: bounds the weight of an easy sample
VALIDATION_CROPS = 32
SHEET_CROPS = 6
EDGE_WEIGHT = 1.0  # relative to the inpainting loss, which is about 2 if the network equals `fill`
SHEET_SCALE = 2


class LightTrainer(nn.Module):
    """The inpainter, its discriminator and the micro-batches so far; forward returns a micro-batch's loss."""

    steps: Tensor

    def __init__(self, inpainter: Light, settings: TrainLight) -> None:
        super().__init__()
        self.inpainter, self.discriminator = inpainter, Discriminator()
        self.weight = settings.discriminator_weight
        first_step = round(settings.discriminator_start * settings.optimizer.steps)
        self.discriminator_start = first_step * settings.optimizer.gradient_accumulation_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        batch: tuple[Tensor, ...],  # of `_make_sample`
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the batch and the metrics to log."""
        filled, inpainted = _inpaint(self.inpainter, batch)
        hole_mask, target = batch[1][:, 1], batch[3]
        value, metrics = _relative_loss(filled, inpainted, target, hole_mask)
        adversarial = bool(self.weight) and int(self.steps) >= self.discriminator_start
        self.steps += 1
        if not adversarial:  # every weight needs a gradient, or distributed processes wait for each other
            return value + 0 * sum(weights.sum() for weights in self.discriminator.parameters()), metrics
        losses = self._adversarial_losses(inpainted.clamp(0, 1), target, hole_mask)
        metrics |= losses
        return value + self.weight * losses["generator"] + losses["discriminator"], metrics

    def _adversarial_losses(self, inpainted: Tensor, target: Tensor, hole_mask: Tensor) -> dict[str, Tensor]:
        """Compute the generator's loss, with a frozen discriminator, and the discriminator's."""
        frozen = {name: weights.detach() for name, weights in self.discriminator.named_parameters()}
        generator = generator_loss(*functional_call(self.discriminator, frozen, (inpainted, hole_mask)))
        fake, share = self.discriminator(inpainted.detach(), hole_mask)
        real, _ = self.discriminator(target, hole_mask)
        return {"generator": generator, "discriminator": discriminator_loss(fake, real, share)}


def train(run: Run, data: Path, settings: TrainLight) -> None:
    """Train on a dataset; see `train_light`."""
    max_gradient = settings.mono_max_gradient
    pool = list_shots(run, data, _min_size(settings), "warp", mono_max_gradient=max_gradient)
    train_light(run, pool, settings)


def train_light(run: Run, pool: ShotPool, settings: TrainLight) -> None:
    """Train on shots, and write the weights to `run.model` and a sample sheet.

    Continues a killed run exactly. Validates on held-out films, see `held_out_films`. Raises UserError if
    no shot is as large as the crops.
    """
    held, trained_on = hold_out("light", select_usable("light", pool, _min_size(settings)))
    draw_held, draw = (DrawCrop(part, settings) for part in (held, trained_on))
    torch.manual_seed(settings.optimizer.seed)

    def draw_validation(count: int) -> list[Sample]:
        seeds = np.random.SeedSequence(settings.optimizer.seed).spawn(count)
        return [draw_held(number, np.random.default_rng(seed)) for number, seed in enumerate(seeds)]

    trainer = training_loop(
        LightTrainer(Light(CHANNELS), settings),
        run,
        name="light",
        hyperparams=settings.optimizer,
        draw=draw,
        loss=lambda model, batch: model(batch),
        validate=lambda model: _validate(_inpainter_of(model), draw_validation(VALIDATION_CROPS)),
    )
    if is_main_process():
        save_light(_inpainter_of(trainer), run.model)
        _write_sheet(_inpainter_of(trainer), draw_validation(SHEET_CROPS), run)


def _inpainter_of(trainer: nn.Module) -> Light:
    assert isinstance(trainer, LightTrainer)
    return trainer.inpainter


def _min_size(settings: TrainLight) -> tuple[int, int, int]:
    return FRAMES, settings.height, settings.width


class DrawCrop:
    """Draws samples from shots."""

    def __init__(self, pool: ShotPool, settings: TrainLight) -> None:
        seed = settings.optimizer.seed
        self.windows = Windows(pool, FRAMES, mono_share=settings.mono_share, seed=seed)
        self.height, self.width = settings.height, settings.width

    def __call__(self, number: int, rng: np.random.Generator) -> Sample:
        shot, frames = self.windows.draw(number, rng)
        lead = range(max(0, frames.start - FILL_LEAD), frames.start)
        window = read_window(shot, [*lead, *frames])
        crop = draw_crop(window.coverage, self.height, self.width, rng)
        return make_sample(window, crop, rng)


def make_sample(
    window: StereoShot,  # quantized, the last FRAMES frames of which become the sample
    crop: ShotCrop,
    rng: np.random.Generator,
) -> Sample:
    """Return planes [2, INPUT_CHANNELS, h, w] and holes [2, 1, h, w]; flow [2, h, w] px; target [3, h, w].

    The second frame is the one to inpaint. Where it stands for the first frame of its shot, the flow leads
    out of the frame.
    """
    view, covered = dequantize_plane(window.warped), dequantize_plane(window.coverage)
    images, surface = fill_shot(view, covered, window.disparity.float())
    filled, left, target, warped, coverage = (
        dequantize_plane(crop_plane(plane[-FRAMES:], crop))
        for plane in (quantize_plane(images), *window.planes[:4])
    )
    surface, hole_mask = (crop_plane(plane[-FRAMES:], crop) for plane in (surface, soft_hole_mask(covered)))
    width = window.left.shape[-1]
    planes = [
        stack_inputs(warped[t], coverage[t], left[t], surface[t], filled[t], width) for t in range(FRAMES)
    ]
    flow = flow_to_previous(flow_gray(filled[1]), flow_gray(filled[0]), *filled.shape[-2:])
    if rng.random() < FIRST_FRAME_SHARE:
        flow = torch.full_like(flow, FAR_AWAY_PX)
    return torch.stack(planes), hole_mask, flow, target[1]


def _inpaint(model: nn.Module, batch: Sample) -> tuple[Tensor, Tensor]:
    """Return the second frames [B, 3, h, w] filled by `fill`, and inpainted by the network.

    The network sees its own output for the previous frame. Given the ground truth there it would learn to
    trust what it has inpainted, and errors would accumulate from frame to frame (measured: 1 dB below
    `fill`).
    """
    planes, hole_mask, flow, _ = batch
    with torch.no_grad():
        previous = planes[:, 0, FILLED] + hole_mask[:, 0] * model(*pack_planes(planes[:, 0]))
    inputs = planes[:, 1].clone()
    inputs[:, PREVIOUS] = warp_previous(previous.clamp(0, 1), flow)
    filled = planes[:, 1, FILLED]
    return filled, filled + hole_mask[:, 1] * model(*pack_planes(inputs))


def _relative_loss(
    filled: Tensor, inpainted: Tensor, target: Tensor, hole_mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss relative to the error of `fill` in each sample, or only rough textures would count."""
    area = 3 * hole_mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    scale = ((filled - target).abs() * hole_mask).sum((1, 2, 3), keepdim=True) / area + MIN_ERROR
    value, metrics = inpainting_loss(inpainted / scale, target / scale, hole_mask)
    edges = edge_loss(inpainted, target, hole_mask)
    return value + EDGE_WEIGHT * edges, metrics | {"edges": edges}


@torch.inference_mode()
def _validate(model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
    """Compute the PSNR in the holes, of the network and of `fill`, over all samples together."""
    batch = tuple(torch.stack(column) for column in zip(*samples, strict=True))
    filled, inpainted = _inpaint(model, batch)
    hole_mask, target = batch[1][:, 1], batch[3]
    area = float(hole_mask.sum().clamp(min=1)) * 3
    errors = {"hole_psnr_db": inpainted.clamp(0, 1) - target, "fill_hole_psnr_db": filled - target}
    return {
        name: -10 * float(np.log10(max(float((error**2 * hole_mask).sum()) / area, 1e-10)))
        for name, error in errors.items()
    }


@torch.inference_mode()
def _write_sheet(model: Light, samples: Sequence[Sample], run: Run) -> None:
    """Write an image with a column for each sample: warped, filled, inpainted, ground truth; enlarged."""
    batch = tuple(torch.stack(column) for column in zip(*samples, strict=True))
    filled, inpainted = _inpaint(model, batch)
    rows = torch.cat([batch[0][:, 1, WARPED], filled, inpainted.clamp(0, 1), batch[3]], dim=2)
    sheet = (torch.cat(list(rows), dim=2).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    write_sample_sheet(run.picture("light.png"), sheet.repeat(SHEET_SCALE, 0).repeat(SHEET_SCALE, 1))
