"""The weights that the training of the diffusion inpainter starts from."""

from pathlib import Path

import torch

from secondeye.inpaint.module_checks import IN_CHANNELS, ONE_STEP_CHANNELS
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_small, make_tiny
from secondeye.inpaint.weights import hash_svd, load_widened
from secondeye.metrics.vgg16 import hash_weights
from secondeye.params import TrainDiffusion


def hash_pretrained(settings: TrainDiffusion) -> dict[str, str]:
    """Hash the weights that training starts from and LPIPS uses. Raises UserError if they are missing."""
    initial = {"initial": hash_svd(settings.pretrained)} if settings.pretrained else {}
    return initial | ({"lpips": hash_weights(settings.vgg_weights)} if settings.vgg_weights else {})


def make_pipeline(
    settings: TrainDiffusion,
    autoencoder: Path | None = None,  # a trained one; without it, or with svd, the one of the initial weights
) -> StereoInpaintPipeline:
    """Build the pipeline that training starts from, the same each time."""
    made = _make_initial(settings)
    if autoencoder is None or settings.size == "svd":
        return made
    trained = type(made.vae).from_pretrained(autoencoder)
    made.vae.load_state_dict(trained.state_dict())
    made.vae.register_to_config(scaling_factor=trained.config.scaling_factor)
    return made


def _make_initial(settings: TrainDiffusion) -> StereoInpaintPipeline:
    torch.manual_seed(settings.network.seed)
    channels = ONE_STEP_CHANNELS if settings.method == "one_step" else IN_CHANNELS
    match settings.size:
        case "tiny":
            return make_tiny(settings.frames, channels)
        case "small":
            return make_small(settings.frames, channels)
    pipeline = load_widened(settings.pretrained, channels)
    pipeline.unet.register_to_config(num_frames=settings.frames)  # the number it is trained on
    return pipeline
