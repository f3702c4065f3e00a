"""Error of the frozen autoencoder in half precision, on frames of real films.

    python benchmarks/half_precision.py AUTOENCODER FILM...

AUTOENCODER is the folder of a trained one (`vae/` of a model); frames are reduced to 128 x 224 px. Latents
have a standard deviation of about 1, so that their error compares with the noise of a training step.
"""

import copy
import math
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from machine import machine
from torch import Tensor

from secondeye.inpaint.autoencoder import decode, encode, signed_frames
from secondeye.video.read import sample_frames

HEIGHT, WIDTH, FRAMES = 128, 224, 4


def main() -> None:
    """Print a row for each film, precision and place of the half-precision numbers."""
    folder, *films = map(Path, sys.argv[1:])
    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder).eval()
    print(f"{machine()}\n")
    print("| film | precision | of | rms error of latents | largest | PSNR of decoded frames, dB |")
    print("|---|---|---|---|---|---|")
    for film in films:
        frames = load_frames(film)
        latents, decoded = code(vae, frames)
        for precision in (torch.bfloat16, torch.float16):
            for of in ("weights", "autocast"):
                found, result = code_in(vae, frames, precision, of)
                error, picture = found - latents, result - decoded
                psnr_db = -10 * math.log10(float((picture.double() ** 2).mean()))
                figures = f"{float(error.std()):.4f} | {float(error.abs().max()):.3f} | {psnr_db:.1f}"
                print(f"| {film.stem} | {str(precision)[6:]} | {of} | {figures} |", flush=True)


def load_frames(film: Path) -> Tensor:  # [T, 3, H, W] in [-1, 1]
    """Return frames from all over a film."""
    frames = [torch.from_numpy(frame) for frame in sample_frames(film, FRAMES, (HEIGHT, WIDTH))]
    return signed_frames(torch.stack(frames))


@torch.no_grad()
def code(vae: AutoencoderKLTemporalDecoder, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scaled latents, and the decoded frames in [0, 1]."""
    latents = encode(vae, frames) * vae.config.scaling_factor
    return latents, (decode(vae, latents, FRAMES) / 2 + 0.5).clamp(0, 1)


def code_in(
    vae: AutoencoderKLTemporalDecoder, frames: Tensor, precision: torch.dtype, of: str
) -> tuple[Tensor, Tensor]:
    """Do the same with weights in half precision, or under autocast with float32 weights."""
    if of == "weights":
        return code(copy.deepcopy(vae).to(precision), frames)
    with torch.autocast("cpu", precision):
        return code(vae, frames)


if __name__ == "__main__":
    main()
