"""The one-step loss: the network's inputs, and exact values."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from secondeye.inpaint.autoencoder import decode, encode
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_tiny
from secondeye.metrics.learned import load_lpips
from secondeye.training.conditioning import ClipBatch, encode_conditions
from secondeye.training.one_step import image_losses, one_step_loss

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipeline() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    made = make_tiny(frames=3, in_channels=13)
    made.vae.requires_grad_(False)
    made.image_encoder.requires_grad_(False)
    return made


@pytest.fixture(autouse=True)
def clear_gradients(pipeline: StereoInpaintPipeline) -> Iterator[None]:
    yield
    pipeline.unet.zero_grad()


def make_batch() -> ClipBatch:
    """Two clips of three frames; a quarter of the first one's latents are holes, and none of the second's."""
    generator = torch.Generator().manual_seed(0)
    truth, given, left = (torch.rand(2, 3, 3, 64, 64, generator=generator) for _ in range(3))
    holes = torch.zeros(2, 3, 1, 64, 64)
    holes[0, ..., :16] = 1
    return ClipBatch(truth, given * (1 - holes), holes, left)


class ConstantNetwork(nn.Module):
    """A network that returns one velocity for everything, and records its inputs."""

    def __init__(self, velocity: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.velocity = velocity
        self.inputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, stacked: Tensor, timestep: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        self.inputs.append((stacked, timestep))
        return (self.weight * self.velocity,)


def test_the_true_velocity_has_no_loss(pipeline: StereoInpaintPipeline) -> None:
    truth, _ = encode_conditions(pipeline, make_batch())
    value, parts = one_step_loss(ConstantNetwork(-truth), pipeline, make_batch(), lpips=None)
    assert float(value.detach()) == 0 and float(parts["holes"].detach()) == 0


def test_the_loss_is_the_mean_square_of_all_latents(pipeline: StereoInpaintPipeline) -> None:
    """Off by 2 in the holes, an eighth of both clips, and by 1 elsewhere."""
    truth, conditions = encode_conditions(pipeline, make_batch())
    value, parts = one_step_loss(
        ConstantNetwork(1 + conditions.mask - truth), pipeline, make_batch(), lpips=None
    )
    assert_close(value.detach(), torch.tensor(4 / 8 + 7 / 8))
    assert_close(parts["latents"], value)
    assert_close(parts["holes"].detach(), torch.tensor(4.0))


def test_the_network_gets_both_views_and_no_noise(pipeline: StereoInpaintPipeline) -> None:
    batch, network = make_batch(), ConstantNetwork(torch.zeros(2, 3, 4, 8, 8))
    before = torch.get_rng_state()
    one_step_loss(network, pipeline, batch, lpips=None)
    assert torch.equal(before, torch.get_rng_state())  # no random number was drawn
    ((stacked, timestep),) = network.inputs
    assert float(timestep) == pytest.approx(0.25 * math.log(700))
    nothing, left, given, mask = stacked.split((4, 4, 4, 1), dim=2)
    assert not nothing.any()
    for latents, clips in ((left, batch.left), (given, batch.warped)):
        assert clips is not None
        assert_close(latents, torch.stack([encode(pipeline.vae, 2 * clip - 1) for clip in clips]))
    assert mask[0, ..., :2].all() and mask.sum() == 3 * 8 * 2


def test_exactly_the_weights_of_the_network_are_trained(pipeline: StereoInpaintPipeline) -> None:
    value, _ = one_step_loss(pipeline.unet, pipeline, make_batch(), lpips=None)
    value.backward()
    learns = {name for name, weight in pipeline.unet.named_parameters() if weight.grad is not None}
    assert learns == {name for name, _ in pipeline.unet.named_parameters()}
    assert pipeline.unet.conv_in.weight.grad[:, 4:8].any()  # of the left view
    assert all(weight.grad is None for weight in pipeline.vae.parameters())
    again, _ = one_step_loss(pipeline.unet, pipeline, make_batch(), lpips=None)
    assert torch.equal(value, again)


@pytest.mark.parametrize("by", ["difference", "lpips"])
def test_image_losses_are_zero_for_equal_images_and_exact_for_others(
    pipeline: StereoInpaintPipeline, vgg16_folder: Path, by: str
) -> None:
    """Frames, not groups, have equal weight: three of them are decoded as two and one."""
    lpips = load_lpips(vgg16_folder, "cpu") if by == "lpips" else None
    latents = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.no_grad():  # two frames at a time, as the loss decodes them
        clips = [torch.cat([decode(pipeline.vae, part, 2) for part in clip.split(2)]) for clip in latents]
        truth = torch.stack(clips) / 2 + 0.5
    same = image_losses(pipeline, latents, truth, lpips)
    assert same.keys() == {"images"} | ({"lpips"} if lpips else set())
    assert all(float(value.detach()) < 1e-6 for value in same.values())
    other = truth - 0.25
    other[:, 0] = truth[:, 0]
    losses = image_losses(pipeline, latents, other, lpips)
    assert_close(losses["images"].detach(), torch.tensor(0.5 * 2 / 3))
    if lpips:
        expected = lpips(truth.flatten(0, 1), other.flatten(0, 1)).mean().float()
        assert expected > 0.001
        assert_close(losses["lpips"].detach(), expected, rtol=1e-4, atol=0)
    losses[list(losses)[-1]].backward()
    assert latents.grad is not None and bool(latents.grad[:, 1:].flatten(2).any(dim=2).all())
    assert all(weight.grad is None for weight in pipeline.vae.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="images are compared on a GPU alone")
def test_on_a_gpu_the_loss_includes_images(pipeline: StereoInpaintPipeline, vgg16_folder: Path) -> None:
    lpips = load_lpips(vgg16_folder, "cuda")
    batch = ClipBatch(*(None if part is None else part.cuda() for part in make_batch()))
    for module in (pipeline.vae, pipeline.image_encoder, pipeline.unet):
        module.cuda()
    value, parts = one_step_loss(pipeline.unet, pipeline, batch, lpips=lpips)
    assert float(parts["images"].detach()) > 0 and float(parts["lpips"].detach()) > 0
    assert_close(value, parts["latents"] + parts["images"] + parts["lpips"])
    value.backward()
    assert bool(pipeline.unet.conv_out.weight.grad.any())
