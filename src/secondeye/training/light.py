"""Training of the light inpainter: what was open, painted on top of `fill`, against the truth.

In the last part of a training a second network judges what was painted, and the inpainter learns to satisfy
it, too. Both are parts of one module under one AdamW, which works weight by weight: as good as two, and one
checkpoint holds all there is to go on from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from secondeye.inpaint.light import save_light
from secondeye.inpaint.light_network import (
    CHANNELS,
    FILLED,
    PREVIOUS,
    WARPED,
    Light,
    flow_to_previous,
    soft_hole_mask,
    stack_inputs,
    warp_previous,
)
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
from secondeye.training.footage import hold_out, keep_usable, load_all
from secondeye.training.loop import Draw, Sample, training_loop
from secondeye.training.monocular import fill_shot
from secondeye.training.sample_sheet import write_sample_sheet
from secondeye.training.samples import SceneWindow, cut, draw_window
from secondeye.training.scene import Scene, store_picture

START_SHARE = 0.1  # of samples that have no frame before them
FRAMES = 2  # of a sample: the frame before, and the one to paint
FAR_AWAY_PX = 1e6  # a flow that leads out of any picture
LEAST_LEVEL = 0.01  # of fill's error, that an easy sample may not count without end
CHECKED_WINDOWS = 32  # of held-out scenes, scored at the end
SHOWN_WINDOWS = 6
EDGE_WEIGHT = 1.0  # beside 1 of the painting loss, which is of the size 2 where `fill` is no worse
ENLARGED = 2  # times, in the picture


class Taught(nn.Module):
    """The inpainter, its judge, and how many steps they have learnt: forward is one step's loss."""

    steps: Tensor

    def __init__(self, painter: Light, settings: TrainLight) -> None:
        super().__init__()
        self.painter, self.judge = painter, Discriminator()
        self.weight = settings.discriminator_weight
        first_judged = round(settings.discriminator_start * settings.optimizer.steps)
        self.judged_from = (
            first_judged * settings.optimizer.gradient_accumulation_steps
        )  # a step counts once a part
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        batch: tuple[Tensor, ...],  # of `_sample`
    ) -> tuple[Tensor, dict[str, Tensor]]:
        filled, painted = _paint(self.painter, batch)
        open_, truth = batch[1][:, 1], batch[3]
        value, parts = _painting(filled, painted, truth, open_)
        judged = bool(self.weight) and int(self.steps) >= self.judged_from
        self.steps += 1
        if not judged:  # every weight has a gradient: processes that train together wait for each
            return value + 0 * sum(weights.sum() for weights in self.judge.parameters()), parts
        verdicts = self._verdicts(painted.clamp(0, 1), truth, open_)
        parts |= verdicts
        return value + self.weight * verdicts["fooling"] + verdicts["judging"], parts

    def _verdicts(self, painted: Tensor, truth: Tensor, open_: Tensor) -> dict[str, Tensor]:
        """What the painter minimises, which leaves the judge as it is, and what the judge does."""
        still = {name: weights.detach() for name, weights in self.judge.named_parameters()}
        fooling = generator_loss(*functional_call(self.judge, still, (painted, open_)))
        of_painted, share = self.judge(painted.detach(), open_)
        of_truth, _ = self.judge(truth, open_)
        return {"fooling": fooling, "judging": discriminator_loss(of_painted, of_truth, share)}


class Filled(NamedTuple):
    """What `fill` made of a scene."""

    frames: Tensor  # uint8 [T, 3, H, W], of 255
    disparity: Tensor  # float16 [T, 1, H, W] px, the background's in the holes


def train(run: Run, folders: Sequence[Path], settings: TrainLight) -> None:
    """Train on the folders of `load_all`; see `train_light`."""
    train_light(run, *load_all(folders, _least(settings)), settings)


def train_light(run: Run, stereo: Sequence[Scene], mono: Sequence[Scene], settings: TrainLight) -> None:
    """Train on stored scenes, write the weights to `run.model` and a picture. Continues a killed run exactly.

    Scored on scenes not learnt from, with 20 or more of them. Raises Refusal when no scene is as large as the
    crops.
    """
    held, learnt = hold_out(*keep_usable("light", stereo, mono, _least(settings)))
    draw_held, draw = (_drawing(*kinds, settings) for kinds in (held, learnt))
    torch.manual_seed(settings.optimizer.seed)
    seeds = np.random.SeedSequence(settings.optimizer.seed).spawn(CHECKED_WINDOWS)
    checked = [draw_held(np.random.default_rng(seed)) for seed in seeds]
    taught = training_loop(
        Taught(Light(CHANNELS), settings),
        run,
        name="light",
        hyperparams=settings.optimizer,
        draw=draw,
        loss=lambda model, batch: model(batch),
        validate=lambda model: _score(_painter_of(model), checked),
    )
    if is_main_process():
        save_light(_painter_of(taught), run.model)
        _show(_painter_of(taught), checked[:SHOWN_WINDOWS], run)


def _painter_of(taught: nn.Module) -> Light:
    assert isinstance(taught, Taught)
    return taught.painter


def _least(settings: TrainLight) -> tuple[int, int, int]:
    return FRAMES, settings.height, settings.width


def _drawing(stereo: Sequence[Scene], mono: Sequence[Scene], settings: TrainLight) -> Draw:
    """How samples are drawn from these scenes."""
    scenes = [*stereo, *mono]
    filled = [_fill_scene(scene) for scene in scenes]

    def draw(rng: np.random.Generator) -> Sample:
        window = draw_window(stereo, mono, settings.mono_share, settings.height, settings.width, FRAMES, rng)
        return _sample(scenes[window.scene], filled[window.scene], window, rng)

    return draw


def _fill_scene(scene: Scene) -> Filled:
    frames, _, height, width = scene.left.shape
    whole = SceneWindow(0, 0, frames, 0, 0, height, width, flipped=False, gain=(1, 1, 1))
    warped, coverage, disparity = (cut(plane, whole) for plane in scene.planes[2:])
    pictures, behind = fill_shot(warped, coverage, disparity)
    return Filled(store_picture(pictures), behind.to(torch.float16))


def _sample(scene: Scene, filled: Filled, window: SceneWindow, rng: np.random.Generator) -> Sample:
    """Two frames: planes [2, INPUT_CHANNELS, h, w] and holes [2, 1, h, w]; flow [2, h, w]; truth [3, h, w].

    The second is the one to paint; its flow leads nowhere where it is taken for the first of its shot.
    """
    left, truth, warped, coverage, _ = (cut(plane, window) for plane in scene.planes)
    pictures, behind = (cut(plane, window) for plane in filled)
    width = scene.left.shape[-1]
    planes = [
        stack_inputs(warped[t], coverage[t], left[t], behind[t], pictures[t], width) for t in range(FRAMES)
    ]
    flow = flow_to_previous(pictures[1], pictures[0])
    if rng.random() < START_SHARE:
        flow = torch.full_like(flow, FAR_AWAY_PX)
    return torch.stack(planes), soft_hole_mask(coverage), flow, truth[1]


def _paint(model: nn.Module, batch: Sample) -> tuple[Tensor, Tensor]:
    """What `fill` and the network [B, 3, h, w] make of the second frames.

    The network sees its own picture of the frame before. Given the truth there it would learn to trust what
    it has painted, and every frame would repeat and add to the errors of the last (measured: 1 dB below
    `fill`).
    """
    planes, open_, flow, _ = batch
    with torch.no_grad():
        before = planes[:, 0, FILLED] + open_[:, 0] * model(planes[:, 0])
    seen = planes[:, 1].clone()
    seen[:, PREVIOUS] = warp_previous(before.clamp(0, 1), flow)
    filled = planes[:, 1, FILLED]
    return filled, filled + open_[:, 1] * model(seen)


def _painting(
    filled: Tensor, painted: Tensor, truth: Tensor, open_: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Errors are shares of what `fill` gets wrong in a sample: else only rough textures would count."""
    area = 3 * open_.sum((1, 2, 3), keepdim=True).clamp(min=1)
    level = ((filled - truth).abs() * open_).sum((1, 2, 3), keepdim=True) / area + LEAST_LEVEL
    value, parts = inpainting_loss(painted / level, truth / level, open_)
    edges = edge_loss(painted, truth, open_)
    return value + EDGE_WEIGHT * edges, parts | {"edges": edges}


@torch.inference_mode()
def _score(model: nn.Module, samples: Sequence[Sample]) -> dict[str, float]:
    """PSNR of what was open, of the network and of `fill`, over the samples together."""
    batch = tuple(torch.stack(column) for column in zip(*samples, strict=True))
    filled, painted = _paint(model, batch)
    open_, truth = batch[1][:, 1], batch[3]
    area = float(open_.sum().clamp(min=1)) * 3
    errors = {"open_psnr_db": painted.clamp(0, 1) - truth, "fill_open_psnr_db": filled - truth}
    return {
        name: -10 * float(np.log10(max(float((error**2 * open_).sum()) / area, 1e-10)))
        for name, error in errors.items()
    }


@torch.inference_mode()
def _show(model: Light, samples: Sequence[Sample], run: Run) -> None:
    """Rows: warped, filled, painted, truth; one column a sample, enlarged."""
    batch = tuple(torch.stack(column) for column in zip(*samples, strict=True))
    filled, painted = _paint(model, batch)
    rows = torch.cat([batch[0][:, 1, WARPED], filled, painted.clamp(0, 1), batch[3]], dim=2)
    sheet = (torch.cat(list(rows), dim=2).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    write_sample_sheet(run.picture("light.png"), sheet.repeat(ENLARGED, 0).repeat(ENLARGED, 1))
