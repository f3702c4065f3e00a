"""What the modules of a stereo inpainting pipeline must be, with a one-line error if they are not."""

from collections.abc import Mapping
from typing import Any, get_args

from secondeye.inpaint.autoencoder import LATENT_PX, patch_px
from secondeye.inpaint.interface import Conditioning
from secondeye.system.errors import UserError

LATENT_CHANNELS = 4
SVD_CHANNELS = 2 * LATENT_CHANNELS  # noisy latents, latents of the first frame
IN_CHANNELS = 2 * LATENT_CHANNELS + 1  # noisy latents, latents of the warped view, mask
ONE_STEP_CHANNELS = 3 * LATENT_CHANNELS + 1  # zeros, latents of the left view, of the warped view, mask
REQUIRED_SCHEDULER = {  # in scheduler_config.json; timesteps are 0.25 ln(sigma)
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
OVERLAP_MASKS = ("kept", "cleared")  # mask of frames inpainted before: unchanged, or without holes
CONDITIONINGS: tuple[str, ...] = get_args(Conditioning)


def require_input_channels(channels: Any, where: object) -> None:
    """Raise UserError unless a UNet has the input channels of stereo inpainting."""
    if channels not in (IN_CHANNELS, ONE_STEP_CHANNELS):
        raise UserError(
            f"{where}: the network has {channels} input channels, stereo inpainting needs {IN_CHANNELS}, or "
            f"{ONE_STEP_CHANNELS} for one step; plain Stable Video Diffusion ({SVD_CHANNELS} channels) "
            "cannot be used, StereoCrafter's network can"
        )


def require_scheduler(
    config: Mapping[str, Any],  # of the scheduler, with _class_name
    where: str,
) -> None:
    """Raise UserError unless the scheduler is the one that these networks are trained for."""
    wrong = [
        f"{name} is {config.get(name)}"
        for name, value in REQUIRED_SCHEDULER.items()
        if config.get(name) != value
    ]
    if wrong:
        required = ", ".join(f"{name} {value}" for name, value in REQUIRED_SCHEDULER.items())
        raise UserError(
            f"{where}: {', '.join(wrong)}; the network needs {required.removeprefix('_class_name ')}, "
            "as Stable Video Diffusion does"
        )


def require_training_conventions(overlap_mask: str, conditioning: str) -> None:
    """Raise UserError unless the names are one of OVERLAP_MASKS and one of CONDITIONINGS."""
    for key, name, names in (
        ("overlap_mask", overlap_mask, OVERLAP_MASKS),
        ("conditioning", conditioning, CONDITIONINGS),
    ):
        if name not in names:
            raise UserError(f"{key} must be one of {', '.join(names)}, got {name!r}")


def require_sizes(unet: Any, vae: Any) -> None:
    """Raise UserError unless the configs give the window length, the frame size and the latents' scale."""
    for part, module, name in (
        ("unet", unet, "num_frames"),
        ("unet", unet, "sample_size"),
        ("vae", vae, "scaling_factor"),
    ):
        value = module.config.get(name)
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{part}/config.json: {name} must be above 0, got {value}; get the file again")


def require_compatible(unet: Any, vae: Any, image_encoder: Any) -> None:
    """Raise UserError for modules of different models, which would fail at the first frame."""
    downscaling = 2 ** (len(vae.config.block_out_channels) - 1) * patch_px(vae)
    for what, actual, needed in (
        (
            "dimensions of the image_encoder's embedding",
            image_encoder.config.projection_dim,
            unet.config.cross_attention_dim,
        ),
        ("channels of the vae's latents", vae.config.latent_channels, LATENT_CHANNELS),
        ("px to a latent of the vae", downscaling, LATENT_PX),
    ):
        if actual != needed:
            raise UserError(
                f"the modules do not fit each other: {actual} {what}, the network needs {needed}; "
                "get all of them from one model"
            )
